//! Everything that a person or a script reads.
//!
//! Standard output carries the answer: text for a person, or exactly one JSON object with `--json`.
//! Everything else, progress and problems alike, goes to standard error.

pub(crate) mod json;
pub(crate) mod limits;
pub(crate) mod number;
pub(crate) mod paint;
mod presentable;
mod printer;
pub(crate) mod progress;
pub(crate) mod summary;
pub(crate) mod table;

pub(crate) use paint::{Paint, Tone};
pub(crate) use presentable::PresentableLog;
pub(crate) use printer::{Printer, unwritten_answer};
