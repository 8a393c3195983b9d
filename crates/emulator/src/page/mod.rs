//! `GET /__emulator/`: what a person wants to see of a running emulator.
//!
//! Two pages, rendered here: the overview (tables, requests, limits now, faults) and the rows of
//! one table. Promise: everything shown is escaped, nothing is loaded from elsewhere, and the
//! pages work without script; with it they keep themselves current. Left out: changing anything,
//! which the control requests do (`control`).

mod overview;
mod rows;

use std::fmt::Write;

use http::StatusCode;

use crate::engine::Engine;
use crate::web::Answer;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("refresh.js");

/// The page a path below `/__emulator/` names, if it names one.
pub(crate) fn answer(engine: &Engine, origin: &str, path: &str, query: &str) -> Option<Answer> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [] => Some(html(&document("Emulator", &overview::main(engine, origin)))),
        ["tables", name] => Some(if let Some(main) = rows::main(engine, origin, name, query) {
            html(&document(name, &main))
        } else {
            let mut answer = html(&document("Not found", "<main><h1>There is no such table</h1></main>"));
            answer.status = StatusCode::NOT_FOUND;
            answer
        }),
        _ => None,
    }
}

fn html(document: &str) -> Answer {
    let mut answer = Answer::text("text/html; charset=utf-8", document.as_bytes().to_vec());
    answer.set("cache-control", "no-store");
    answer.set(
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
    );
    answer
}

fn document(title: &str, main: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{} · Flowgate emulator</title><style>{STYLE}</style></head>\
         <body>{main}<script>{SCRIPT}</script></body></html>",
        escaped(title)
    )
}

// Writing to a string cannot fail; the result is dropped by name.
fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = out.write_fmt(text);
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_holds_cannot_become_markup() {
        assert_eq!(escaped("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
    }
}
