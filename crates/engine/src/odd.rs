//! Values that were taken otherwise than they were written, said to the person who watches.

use flowgate_core::moment::{NonexistentTimes, Oddity, RepeatedTimes};
use flowgate_core::{Note, Notes, WallClock};

use crate::run::Engine;

/// One warning for each column and way; `place` is the stream or load.
pub(crate) fn warn_of(engine: &Engine, place: &str, clock: &WallClock, notes: &Notes) {
    for (column, note, count, example) in notes.iter() {
        engine.warn(&format!("{place}, `{column}`: {}", words(note, count, example, clock)));
    }
}

fn words(note: Note, count: u64, example: &str, clock: &WallClock) -> String {
    let times = if count == 1 { "1 time".to_owned() } else { format!("{count} times") };
    match note {
        Note::Time(oddity @ Oddity::Nonexistent) => {
            let choice = match clock.times().nonexistent {
                NonexistentTimes::Next => "was read as the next moment that does",
                NonexistentTimes::SetAside => "was set aside",
            };
            format!(
                "{times} (first `{example}`) {} {}, and {choice} (`nonexistent_times:`)",
                oddity.words(),
                clock.name()
            )
        }
        Note::Time(oddity @ Oddity::Repeated) => {
            let choice = match clock.times().repeated {
                RepeatedTimes::First => "was read as the first",
                RepeatedTimes::Second => "was read as the second",
                RepeatedTimes::SetAside => "was set aside",
            };
            format!("{times} (first `{example}`) {} {}, and {choice} (`repeated_times:`)", oddity.words(), clock.name())
        }
        Note::RoundedDouble => {
            format!("{count} numbers (first `{example}`) have more decimals than the column, which rounds them")
        }
    }
}
