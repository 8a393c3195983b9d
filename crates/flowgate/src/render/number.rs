//! Numbers as a person reads them: `30,659`, `41.2 s`, `3 letters`.

/// With a comma between thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 letter`, `3 letters`.
pub(crate) fn counted(number: u64, word: &str) -> String {
    format!("{} {word}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `0.4 s`, `41 s`, `2 min 05 s`, `3 h 20 min`.
pub(crate) fn of_seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3_600, whole % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!([0, 7, 999, 1_000, 30_659, 1_234_567].map(count).join(" "), "0 7 999 1,000 30,659 1,234,567");
        assert_eq!(counted(1, "letter"), "1 letter");
        assert_eq!(counted(2_000, "row"), "2,000 rows");
    }

    #[test]
    fn times_have_the_unit_they_need() {
        let texts = [0.04, 9.96, 41.2, 125.0, 12_000.0].map(of_seconds);
        assert_eq!(texts.join(", "), "0.0 s, 10 s, 41 s, 2 min 05 s, 3 h 20 min");
    }
}
