//! Colour, where a terminal shows it and nobody asked for none.

use std::io::IsTerminal;

/// What a piece of text is to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Bad,
    Careful,
    /// Names and figures that matter.
    Strong,
    /// Said once, and never looked at again.
    Faint,
}

/// Puts tones on text, or leaves it as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    is_on: bool,
}

impl Paint {
    /// For a stream: on for terminals, unless `NO_COLOR` is set or the terminal is dumb.
    pub(crate) fn for_stream(stream: &impl IsTerminal) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { is_on: stream.is_terminal() && !is_set("NO_COLOR") && !is_dumb }
    }

    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Self { is_on: false }
    }

    pub(crate) fn is_on(self) -> bool {
        self.is_on
    }

    pub(crate) fn paint(self, tone: Tone, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        if !self.is_on {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Careful => "33",
            Tone::Strong => "1",
            Tone::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    pub(crate) fn good(self, text: impl AsRef<str>) -> String {
        self.paint(Tone::Good, text)
    }

    pub(crate) fn bad(self, text: impl AsRef<str>) -> String {
        self.paint(Tone::Bad, text)
    }

    pub(crate) fn careful(self, text: impl AsRef<str>) -> String {
        self.paint(Tone::Careful, text)
    }

    pub(crate) fn strong(self, text: impl AsRef<str>) -> String {
        self.paint(Tone::Strong, text)
    }

    pub(crate) fn faint(self, text: impl AsRef<str>) -> String {
        self.paint(Tone::Faint, text)
    }

    /// A tick or a cross.
    pub(crate) fn verdict(self, holds: bool) -> String {
        if holds { self.good("✓") } else { self.bad("✗") }
    }
}
