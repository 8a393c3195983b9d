//! The answer of a limit: its code, its text, and when to come back (21.2).
//!
//! Promise: the text names the limit that is in force. Left out: when it is reached (`limits`).

use crate::engine::{Engine, lock};
use crate::error::{ApiError, Code};
use crate::limits::{LimitKind, Refusal};
use crate::web::Answer;

pub(crate) fn answer(engine: &Engine, refusal: Refusal) -> Answer {
    let settings = lock(&engine.limits).settings.clone();
    let (code, message) = match refusal.kind {
        LimitKind::Requests => (
            Code::RequestsExceeded,
            format!(
                "Number of requests exceeded the limit of {} over time window of {} seconds.",
                settings.requests.unwrap_or(6000),
                settings.window_s
            ),
        ),
        LimitKind::ExecutionTime => (
            Code::TimeExceeded,
            format!(
                "Combined execution time of incoming requests exceeded limit of {} milliseconds over time window of {} seconds. \
                 Decrease number of concurrent requests or reduce the duration of requests and try again later.",
                grouped(settings.execution_ms.unwrap_or(1_200_000.0) as u64),
                settings.window_s
            ),
        ),
        LimitKind::Concurrency => (
            Code::ConcurrencyExceeded,
            format!("Number of concurrent requests exceeded the limit of {}.", settings.concurrent.unwrap_or(52)),
        ),
    };
    let mut error = ApiError::new(code, message);
    error.retry_after = Some(refusal.retry_after_s);
    Answer::error(&error, false)
}

/// `1200000` as `1,200,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(
            ["12", "123", "1,234", "1,200,000"],
            [12, 123, 1234, 1_200_000].map(grouped).each_ref().map(String::as_str)
        );
    }
}
