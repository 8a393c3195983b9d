//! Decimal numbers in text, read exactly: a digit that finds no place is told, never dropped unseen.

/// The most digits a decimal holds.
pub const DIGITS_MAX: u32 = 38;

/// Exponents beyond this are nonsense, not numbers.
const EXPONENT_MAX: i64 = 400;

/// Whole numbers up to which each is a double of its own.
const EXACT_IN_DOUBLE_MAX: u64 = 1 << 53;

/// Why a text is not the number wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFault {
    NotANumber,
    NotWhole,
    TooLarge,
    /// More decimals than there is room for.
    TooFine,
}

/// Reads `text` as a number with `scale` decimals. Zeros behind the last place do not count as decimals.
pub fn read(text: &str, scale: i8) -> Result<i128, NumberFault> {
    match parts(text, scale)? {
        (value, 0, false) => Ok(value),
        _ => Err(NumberFault::TooFine),
    }
}

/// The same, rounded half away from zero: for numbers that are known to be rounded by their owner.
pub fn read_rounded(text: &str, scale: i8) -> Result<i128, NumberFault> {
    let (value, next_digit, _) = parts(text, scale)?;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    Ok(if next_digit >= 5 { value + sign } else { value })
}

/// The number cut off at `scale`, the first digit that was cut off, and whether others behind it are not zero.
fn parts(text: &str, scale: i8) -> Result<(i128, u8, bool), NumberFault> {
    let (is_negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i64>().map_err(|_| NumberFault::NotANumber)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.len() + fraction.len() == 0 || digits().any(|byte| !byte.is_ascii_digit()) {
        return Err(NumberFault::NotANumber);
    }
    if exponent.abs() > EXPONENT_MAX {
        return Err(if digits().all(|digit| digit == b'0') { NumberFault::NotANumber } else { NumberFault::TooLarge });
    }
    let kept = whole.len() as i64 + exponent + i64::from(scale);
    let mut value: i128 = 0;
    let mut rest = digits();
    for _ in 0..kept.max(0) {
        let digit = i128::from(rest.next().unwrap_or(b'0') - b'0');
        value = value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(NumberFault::TooLarge)?;
    }
    if value >= 10_i128.pow(DIGITS_MAX) {
        return Err(NumberFault::TooLarge);
    }
    // Below -1 the first dropped digit is a zero that is not written.
    let next_digit = if kept >= 0 { rest.next().map_or(0, |digit| digit - b'0') } else { 0 };
    let has_more = rest.any(|digit| digit != b'0');
    Ok((if is_negative { -value } else { value }, next_digit, has_more))
}

/// Reads `text` as a double: finite, and a whole number only if a double can stand for it.
pub fn read_double(text: &str) -> Result<f64, NumberFault> {
    // What `read` takes is what a number looks like here; `parse` alone would take `nan` and `infinity`.
    match parts(text, 0) {
        Err(NumberFault::NotANumber) => return Err(NumberFault::NotANumber),
        // More digits than any double has, all of them written out.
        Err(NumberFault::TooLarge) if !text.contains(['e', 'E']) => return Err(NumberFault::TooFine),
        Ok((whole, 0, false)) if !text.contains(['e', 'E']) && !is_exact_in_double(whole) => {
            return Err(NumberFault::TooFine);
        }
        _ => {}
    }
    let value: f64 = text.parse().map_err(|_| NumberFault::NotANumber)?;
    if value.is_finite() { Ok(value) } else { Err(NumberFault::TooLarge) }
}

/// Whether a double stands for this whole number and for no other one.
pub fn is_exact_in_double(whole: i128) -> bool {
    whole.unsigned_abs() <= u128::from(EXACT_IN_DOUBLE_MAX) || (whole as f64) as i128 == whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_without_a_place_are_told() {
        for (text, scale, value) in [
            ("2.67", 2, 267),
            ("-2.670", 2, -267),
            ("1e3", 2, 100_000),
            ("1.5E-1", 2, 15),
            (".5", 1, 5),
            ("5.", 1, 50),
            ("+7", 0, 7),
        ] {
            assert_eq!(read(text, scale), Ok(value), "{text}");
        }
        for text in ["2.675", "0.001", "1e-9", "0.0000000000000000000000000000000000000000001"] {
            assert_eq!(read(text, 2), Err(NumberFault::TooFine), "{text}");
        }
        for text in ["", ".", "-", "1,000", "1 000", "0x10", "1e", "--1", "1.2.3", "٣", "inf", "NaN"] {
            assert_eq!(read(text, 2), Err(NumberFault::NotANumber), "{text}");
        }
        assert_eq!(read("1e39", 0), Err(NumberFault::TooLarge));
        assert_eq!(read(&"9".repeat(40), 0), Err(NumberFault::TooLarge));
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        for (text, scale, value) in [
            ("2.675", 2, 268),
            ("-2.675", 2, -268),
            ("2.674999", 2, 267),
            ("0.5", 0, 1),
            ("-0.5", 0, -1),
            ("5e-3", 2, 1),
            ("4e-3", 2, 0),
        ] {
            assert_eq!(read_rounded(text, scale), Ok(value), "{text}");
        }
    }

    #[test]
    fn a_double_is_finite_and_changes_no_whole_number() {
        assert_eq!(read_double("0.10000000000000001"), Ok(0.1));
        assert_eq!(read_double("9007199254740992"), Ok(9_007_199_254_740_992.0));
        assert_eq!(read_double("1e23"), Ok(1e23));
        assert_eq!(read_double("9007199254740993"), Err(NumberFault::TooFine));
        assert_eq!(read_double("9007199254740993.0"), Err(NumberFault::TooFine));
        assert_eq!(read_double(&"1".repeat(40)), Err(NumberFault::TooFine));
        assert_eq!(read_double("1e400"), Err(NumberFault::TooLarge));
        for text in ["NaN", "inf", "Infinity", "1,5", ""] {
            assert_eq!(read_double(text), Err(NumberFault::NotANumber), "{text}");
        }
    }
}
