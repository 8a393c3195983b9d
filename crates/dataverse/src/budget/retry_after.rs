//! `Retry-After`: seconds or a date, and what is believed of it.

use std::time::Duration;

use jiff::Timestamp;

/// Outside these bounds the header is not believed. The longest wait that a window of 300 s explains
/// is two of them.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Reads seconds, or a date as its distance from `date` (the header of the same answer; the clocks of
/// the two machines may differ) or from `now`. `None` if it is neither.
pub(crate) fn read(text: &str, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then(|| bounded(seconds));
    }
    let until = http_date(text)?;
    let now = date.and_then(http_date).unwrap_or(now);
    Some(bounded(until.duration_since(now).as_secs_f64()))
}

/// The wait when the header is missing: 2, 4, 8 … s, by the refusals in a row.
pub(super) fn without(refusals: u32) -> Duration {
    Duration::from_secs(1 << refusals.clamp(1, 9)).min(RETRY_AFTER_MAX)
}

fn bounded(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(RETRY_AFTER_MIN.as_secs_f64(), RETRY_AFTER_MAX.as_secs_f64()))
}

/// `Wed, 21 Oct 2026 07:28:00 GMT`.
pub(crate) fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str, date: Option<&str>) -> Option<f64> {
        let now = "2026-10-21T07:00:00Z".parse().unwrap();
        read(text, date, now).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn seconds_are_bounded_from_both_sides() {
        for (text, wait) in [("37", 37.0), (" 2.5 ", 2.5), ("0", 1.0), ("-40", 1.0), ("31536000", 600.0)] {
            assert_eq!(seconds(text, None), Some(wait), "{text}");
        }
    }

    #[test]
    fn a_date_counts_from_the_date_of_the_same_answer() {
        let until = "Wed, 21 Oct 2026 07:01:30 GMT";
        assert_eq!(seconds(until, None), Some(90.0));
        assert_eq!(seconds(until, Some("Wed, 21 Oct 2026 07:01:00 GMT")), Some(30.0));
        assert_eq!(seconds("Wed, 21 Oct 2020 07:01:30 GMT", None), Some(1.0), "a date that is past");
        assert_eq!(seconds("Wed, 21 Oct 2099 07:01:30 GMT", None), Some(600.0));
    }

    #[test]
    fn nonsense_is_as_if_it_were_missing() {
        for text in ["", "soon", "NaN", "inf", "12 minutes"] {
            assert_eq!(seconds(text, None), None, "{text}");
        }
        assert_eq!(without(1), Duration::from_secs(2));
        assert_eq!(without(40), Duration::from_secs(512));
    }
}
