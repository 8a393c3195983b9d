//! Times as the database keeps them: UTC text of fixed width, so that text order is time order.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

/// Digits of a second that are kept: microseconds.
const PRECISION: u8 = 6;

/// `time` as text, cut to the microsecond.
pub(crate) fn to_text(time: Timestamp) -> String {
    DateTimePrinter::new().precision(Some(PRECISION)).timestamp_to_string(&time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_order_is_time_order() {
        let times = [(1_700_000_000, 0), (1_700_000_000, 5_000), (1_700_000_000, 10_000_000), (1_700_000_001, 0)];
        let texts: Vec<String> =
            times.iter().map(|(second, nanosecond)| to_text(Timestamp::new(*second, *nanosecond).unwrap())).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts[0], "2023-11-14T22:13:20.000000Z");
    }
}
