//! Checks the five fields of a schedule. It does not compute times.
//!
//! Accepted is what every cron reads: `*`, numbers, ranges, lists, steps, and the English names of
//! months and weekdays. Seconds, years, `@daily` and the letters `L W #` are not.

struct Field {
    name: &'static str,
    min: u8,
    max: u8,
    /// Names of the values from `min` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of the month", min: 1, max: 31, names: &[] },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    // Both 0 and 7 are Sunday.
    Field { name: "day of the week", min: 0, max: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// Says what is wrong with a schedule, in words that continue "schedule `…`: ".
pub(crate) fn check(schedule: &str) -> Result<(), String> {
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "it has {} fields instead of five (minute, hour, day of the month, month, day of the week)",
            parts.len()
        ));
    }
    for (field, part) in FIELDS.iter().zip(parts) {
        for item in part.split(',') {
            check_item(field, item)?;
        }
    }
    Ok(())
}

fn check_item(field: &Field, item: &str) -> Result<(), String> {
    let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
    if let Some(step) = step {
        if !step.parse::<u8>().is_ok_and(|step| step >= 1 && step <= field.max) {
            return Err(format!("`{step}` is not a step of the {}", field.name));
        }
    }
    if range == "*" {
        return Ok(());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (value(field, first)?, value(field, last)?);
    if first > last {
        return Err(format!("`{range}` runs backwards"));
    }
    Ok(())
}

fn value(field: &Field, text: &str) -> Result<u8, String> {
    let folded = text.to_ascii_lowercase();
    if let Some(at) = field.names.iter().position(|name| *name == folded) {
        return Ok(field.min + at as u8);
    }
    match text.parse::<u8>() {
        Ok(number) if (field.min..=field.max).contains(&number) => Ok(number),
        _ => Err(format!("{} `{text}` is not within {} to {}", field.name, field.min, field.max)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_schedules_are_accepted() {
        for good in ["0 2 * * *", "*/5 8-18 * * mon-fri", "0 0 1,15 JAN-jun 7", "30 4 1-7/2 * 0"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let message = |text| check(text).unwrap_err();
        assert_eq!(message("0 25 * * *"), "hour `25` is not within 0 to 23");
        assert_eq!(message("0 2 * * fri-mon"), "`fri-mon` runs backwards");
        assert_eq!(message("*/0 2 * * *"), "`0` is not a step of the minute");
        assert_eq!(message("0 2 * * 1#2"), "day of the week `1#2` is not within 0 to 7");
        assert!(message("@daily").starts_with("it has 1 fields instead of five"));
    }
}
