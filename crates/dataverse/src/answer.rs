//! What an answer's status and headers tell the budget.

use std::sync::Arc;
use std::time::Duration;

use flowgate_http::Answer;
use http::header::SET_COOKIE;
use jiff::Timestamp;

use crate::budget::{AnswerFacts, Ended, Throttled, ThrottledBy, retry_after};
use crate::fault::{CONCURRENCY_LIMIT, EXECUTION_TIME_LIMIT, FaultClass, REQUEST_LIMIT, Refusal};

/// The longest affinity cookie that is kept; the service's are some hundred characters.
const COOKIE_BYTES_MAX: usize = 1_024;

/// How an answered request ended, for the budget.
pub(crate) fn budget_end(
    answer: &Answer,
    refusal: Option<&Refusal>,
    duration: Duration,
    affinity_cookie: &str,
    now: Timestamp,
) -> Ended {
    let facts = AnswerFacts {
        duration,
        cookie: cookie(answer, affinity_cookie),
        remaining_seconds: number(answer, "x-ms-ratelimit-time-remaining-xrm-requests"),
        remaining_requests: number(answer, "x-ms-ratelimit-burst-remaining-xrm-requests"),
        parallel_hint: answer.header("x-ms-dop-hint").and_then(|hint| hint.trim().parse().ok()),
    };
    match refusal {
        Some(refusal) if refusal.class == FaultClass::Throttled => {
            let kind = match refusal.code {
                Some(REQUEST_LIMIT) => ThrottledBy::Requests,
                Some(EXECUTION_TIME_LIMIT) => ThrottledBy::ExecutionTime,
                Some(CONCURRENCY_LIMIT) => ThrottledBy::Concurrency,
                _ => ThrottledBy::Other,
            };
            let retry_after =
                answer.header("retry-after").and_then(|text| retry_after::read(text, answer.header("date"), now));
            Ended::Throttled(facts, Throttled { kind, retry_after })
        }
        // Without a code of the platform it was a front end that found nobody.
        Some(refusal) if matches!(refusal.status.as_u16(), 502..=504) && refusal.code.is_none() => {
            Ended::Unavailable(facts)
        }
        _ => Ended::Answered(facts),
    }
}

/// `name=value` of the affinity cookie that the answer sets, as it is sent back.
fn cookie(answer: &Answer, name: &str) -> Option<Arc<str>> {
    let set = answer.headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = set.filter_map(|cookie| cookie.split(';').next()).map(str::trim);
    let is_ours = |pair: &&str| {
        let value = pair.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        value.is_some_and(|value| !value.is_empty() && pair.len() <= COOKIE_BYTES_MAX)
    };
    pairs.into_iter().find(is_ours).map(Arc::from)
}

fn number(answer: &Answer, name: &str) -> Option<f64> {
    header_number(answer.header(name)?)
}

/// A number as the service writes it for people: `5999`, `1,200.00`. `None` if it is none, or below zero.
///
/// Every recording groups by commas, as its English culture does. A front end of another culture would write
/// `1.200,00` or `1 200,00`: which mark is the decimal one is told by the last of two different marks, or by a
/// group that has not three digits. A single mark before three digits is a group if it is a comma (`1,200`) and
/// the decimal one if it is a point (`0.125`).
pub(crate) fn header_number(text: &str) -> Option<f64> {
    let is_group_mark = |mark: char| matches!(mark, ' ' | '\u{a0}' | '\u{202f}' | '\'' | '\u{2019}');
    let text: String = text.trim().chars().filter(|mark| !is_group_mark(*mark)).collect();
    let is_written = |mark: char| mark.is_ascii_digit() || matches!(mark, '.' | ',');
    if !text.starts_with(|first: char| first.is_ascii_digit()) || !text.chars().all(is_written) {
        return None;
    }
    let (commas, points) = (text.matches(',').count(), text.matches('.').count());
    let (group, decimal) = match (text.rfind(','), text.rfind('.')) {
        (Some(comma), Some(point)) if comma > point => ('.', ','),
        (Some(comma), None) if commas == 1 && text.len() - comma != 4 => ('.', ','),
        (None, Some(_)) if points > 1 => ('.', ','),
        _ => (',', '.'),
    };
    let (whole, fraction) = text.split_once(decimal).unwrap_or((&text, ""));
    let mut groups = whole.split(group);
    let first = groups.next().unwrap_or_default();
    let is_grouped = !first.is_empty() && groups.clone().all(|group| group.len() == 3);
    if !is_grouped || (groups.clone().next().is_some() && first.len() > 3) {
        return None;
    }
    let digits: String = std::iter::once(first).chain(groups).collect();
    format!("{digits}.{fraction}0").parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn end(answer: &Answer) -> Ended {
        let refusal = (!answer.status.is_success()).then(|| Refusal::of(answer));
        let now = "2026-10-21T07:00:00Z".parse().unwrap();
        budget_end(answer, refusal.as_ref(), Duration::from_millis(5), "ARRAffinity", now)
    }

    #[test]
    fn headers_are_read_and_nonsense_is_left_out() {
        let good = [
            ("set-cookie", "ReqClientId=1; path=/"),
            ("set-cookie", "ARRAffinity=abc=; Path=/; HttpOnly"),
            ("x-ms-ratelimit-time-remaining-xrm-requests", "1,199.94"),
            ("x-ms-ratelimit-burst-remaining-xrm-requests", "5999"),
            ("x-ms-dop-hint", "24"),
        ];
        let Ended::Answered(facts) = end(&answer(200, &good, "{}")) else { panic!("answered") };
        assert_eq!(facts.cookie.as_deref(), Some("ARRAffinity=abc="));
        assert_eq!(
            (facts.remaining_seconds, facts.remaining_requests, facts.parallel_hint),
            (Some(1_199.94), Some(5_999.0), Some(24))
        );
        let bad = [
            ("set-cookie", "ARRAffinitySameSite=x"),
            ("x-ms-ratelimit-time-remaining-xrm-requests", "-4"),
            ("x-ms-dop-hint", "many"),
        ];
        let Ended::Answered(facts) = end(&answer(200, &bad, "{}")) else { panic!("answered") };
        assert_eq!(facts, AnswerFacts { duration: Duration::from_millis(5), ..AnswerFacts::default() });
    }

    #[test]
    fn numbers_are_read_as_the_service_writes_them() {
        for (text, number) in [
            ("1,200.00", 1_200.0),
            ("1,199.97", 1_199.97),
            ("11,999.99", 11_999.99),
            ("1,234,567.80", 1_234_567.8),
            (" 1200.00 ", 1_200.0),
            ("999.5", 999.5),
            ("0.00", 0.0),
            ("5999", 5_999.0),
            ("7,999", 7_999.0),
            ("0.125", 0.125),
            ("1.200,00", 1_200.0),
            ("1200,00", 1_200.0),
            ("1\u{a0}199,97", 1_199.97),
            ("1\u{202f}200.00", 1_200.0),
            ("1\u{2019}200.00", 1_200.0),
            ("1.234.567", 1_234_567.0),
        ] {
            assert_eq!(header_number(text), Some(number), "{text}");
        }
        for text in
            ["", "-4", "many", "1,20.00", "12,00,000", "1,2.3,4", ",5", ".5", "NaN", "inf", "1e3", "0x10", "1234,567.0"]
        {
            assert_eq!(header_number(text), None, "{text}");
        }
    }

    #[test]
    fn a_customization_that_waits_for_another_is_no_limit() {
        let body = r#"{"error":{"code":"0x80071151","message":"Cannot start the requested operation [Publish]"}}"#;
        assert!(matches!(end(&answer(429, &[("retry-after", "400")], body)), Ended::Answered(_)));
    }

    #[test]
    fn the_three_limits_are_told_apart() {
        for (code, kind) in [
            ("0x80072322", ThrottledBy::Requests),
            ("0x80072321", ThrottledBy::ExecutionTime),
            ("0x80072326", ThrottledBy::Concurrency),
            ("0x8005f103", ThrottledBy::Other),
        ] {
            let body = serde_json::json!({"error": {"code": code, "message": "x"}}).to_string();
            let Ended::Throttled(_, throttled) = end(&answer(429, &[("retry-after", "17")], &body)) else {
                panic!("{code}")
            };
            assert_eq!(throttled, Throttled { kind, retry_after: Some(Duration::from_secs(17)) });
        }
    }

    #[test]
    fn nobody_there_is_not_an_answer() {
        assert!(matches!(end(&answer(503, &[], "<html>")), Ended::Unavailable(_)));
        let coded = r#"{"error":{"code":"0x80044150","message":"x"}}"#;
        assert!(matches!(end(&answer(503, &[], coded)), Ended::Answered(_)));
        assert!(matches!(end(&answer(400, &[], "{}")), Ended::Answered(_)));
    }
}
