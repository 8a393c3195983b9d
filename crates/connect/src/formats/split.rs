//! Splits bytes into CSV records by the letter of RFC 4180, and says what is wrong where they are not of that form.
//!
//! Pure: bytes in, places of fields out. A record without a quote is one line, and its fields are places in it. A
//! record with quotes is walked field by field; text with a doubled quote is copied without it. After a quote that
//! closes, only a delimiter or a line end may follow, and where [`Dialect::quotes_within`] does not allow it, no quote
//! stands inside a field that does not begin with one. What breaks a rule is a [`Fault`] at the line on which the
//! quote opened, and reading goes on at the very next line, so that an unclosed quote costs its own line and no other.
//! Where the rest of such a record can still be read (a quote within a field, a stray carriage return), its lines go
//! with it: what a well-formed field encloses is never a row. No line is looked at more than twice for that: between a quote that opens and the one that ends it, none opens.

use memchr::{memchr, memchr_iter, memchr2, memchr3, memrchr};

/// The largest field. No column of any destination takes more.
pub(super) const FIELD_BYTES_MAX: usize = 16 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
    /// Makes the next character of an enclosed field an ordinary one, where a quote is not written twice.
    pub(super) escape: Option<u8>,
    /// A quote inside a field that does not begin with one is an ordinary character.
    pub(super) quotes_within: bool,
}

/// What ends the lines of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// A line feed, with any number of carriage returns before it.
    Feed,
    /// A carriage return alone, as on old Macs.
    Return,
}

impl LineEnd {
    /// By the first line end of `bytes`, the beginning of a file, that no quote encloses.
    pub(super) fn of(bytes: &[u8], dialect: Dialect) -> Self {
        let mut is_enclosed = false;
        for (at, byte) in bytes.iter().enumerate() {
            match *byte {
                quote if Some(quote) == dialect.quote => is_enclosed = !is_enclosed,
                b'\n' if !is_enclosed => return Self::Feed,
                b'\r' if !is_enclosed => {
                    let after = bytes[at..].iter().find(|byte| **byte != b'\r');
                    let is_return = after.is_some_and(|byte| *byte != b'\n');
                    return if is_return { Self::Return } else { Self::Feed };
                }
                _ => {}
            }
        }
        Self::Feed
    }

    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Feed => b'\n',
            Self::Return => b'\r',
        }
    }

    /// The line end at `at`, if there is one; [`Ending::Unknown`] where more bytes would tell.
    fn at(self, bytes: &[u8], at: usize, is_last: bool) -> Ending {
        if self == Self::Return {
            return match bytes.get(at) {
                Some(b'\r') => Ending::Line(at + 1),
                Some(_) => Ending::None,
                None if is_last => Ending::File,
                None => Ending::Unknown,
            };
        }
        let returns = bytes[at..].iter().take_while(|byte| **byte == b'\r').count();
        match bytes.get(at + returns) {
            Some(b'\n') => Ending::Line(at + returns + 1),
            Some(_) => Ending::None,
            // The rest of a line end that was cut is no more than its beginning.
            None if is_last => Ending::File,
            None => Ending::Unknown,
        }
    }
}

enum Ending {
    /// A line end; what comes after it begins here.
    Line(usize),
    File,
    None,
    Unknown,
}

/// Where a field stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) start: usize,
    pub(super) end: usize,
    /// In the copied text instead of the record itself.
    pub(super) is_copied: bool,
}

/// The fields of a record, in room that is used again.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) places: Vec<Field>,
    /// Texts that had to lose characters: doubled quotes, escapes.
    pub(super) copied: Vec<u8>,
}

impl Fields {
    fn push(&mut self, start: usize, end: usize) {
        self.places.push(Field { start, end, is_copied: false });
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// A record: `length` bytes of text, and what follows after its line end begins at `next`.
    Record { length: usize, next: usize, has_line_end: bool },
    /// Lines that are not of the form. Reading goes on at `next`.
    Malformed { fault: Fault, next: usize },
    /// A field of more than [`FIELD_BYTES_MAX`] in the one line that is there.
    TooLarge,
    /// The record goes on beyond these bytes.
    More,
}

/// What breaks the form, at byte `at` of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// What follows, at another place, a quote that closes what opened at `at`.
    AfterQuote { followed_at: usize },
    /// A quote inside a field that does not begin with one.
    QuoteWithin,
    /// A quote that never closes.
    Unclosed,
    /// A quote that does not close within the largest field.
    ClosesTooLate,
    /// A carriage return or line feed that ends no line of this file.
    StrayLineEnd,
    /// Outside of quotes, an escape before a delimiter or line end: one reader would take both for text, another neither.
    EscapeOutside,
}

/// Splits the bytes of one file.
#[derive(Debug)]
pub(super) struct Splitter {
    dialect: Dialect,
    pub(super) ends: LineEnd,
    /// The bytes that may end a field without quotes, or may not be in it.
    ends_plain: [bool; 256],
}

impl Splitter {
    pub(super) fn new(dialect: Dialect, ends: LineEnd) -> Self {
        let mut ends_plain = [false; 256];
        let escape = dialect.escape.filter(|_| dialect.quote.is_some());
        let quote = dialect.quote.filter(|_| !dialect.quotes_within);
        for byte in [Some(dialect.delimiter), Some(b'\r'), Some(b'\n'), quote, escape].into_iter().flatten() {
            ends_plain[usize::from(byte)] = true;
        }
        Self { dialect, ends, ends_plain }
    }

    /// Finds the record at the beginning of `bytes`, which begins neither with a line end nor with nothing.
    pub(super) fn split(&self, bytes: &[u8], is_last: bool, fields: &mut Fields) -> Split {
        let Self { dialect, ends, .. } = self;
        fields.places.clear();
        fields.copied.clear();
        let found = memchr(ends.byte(), bytes);
        if found.is_none() && !is_last {
            // Without the end of even the first line, nothing can be said.
            return if is_last_field_too_large(bytes, *dialect) { Split::TooLarge } else { Split::More };
        }
        let line = trimmed(&bytes[..found.unwrap_or(bytes.len())], *ends);
        let special = first_special(line, *dialect, *ends);
        let mut start = 0;
        for at in memchr_iter(dialect.delimiter, &line[..special.unwrap_or(line.len())]) {
            fields.push(start, at);
            start = at + 1;
        }
        if special.is_some() {
            return Walk { bytes, is_last, splitter: self, fields, fault: None }.record(start);
        }
        fields.push(start, line.len());
        if line.len() > FIELD_BYTES_MAX && fields.places.iter().any(|field| field.end - field.start > FIELD_BYTES_MAX) {
            return Split::TooLarge;
        }
        Split::Record {
            length: line.len(),
            next: found.map_or(bytes.len(), |at| at + 1),
            has_line_end: found.is_some(),
        }
    }
}

/// Whether the last field that begins in `bytes` is larger than any may be.
fn is_last_field_too_large(bytes: &[u8], dialect: Dialect) -> bool {
    if bytes.len() <= FIELD_BYTES_MAX {
        return false;
    }
    let start = memrchr(dialect.delimiter, bytes).map_or(0, |at| at + 1);
    let start = match dialect.quote {
        // Delimiters inside of quotes separate nothing.
        Some(quote) => memrchr(quote, bytes).map_or(start, |at| at.min(start)),
        None => start,
    };
    bytes.len() - start > FIELD_BYTES_MAX
}

fn trimmed(line: &[u8], ends: LineEnd) -> &[u8] {
    let mut line = line;
    while let (LineEnd::Feed, [rest @ .., b'\r']) = (ends, line) {
        line = rest;
    }
    line
}

/// The first byte of a line that is more than a delimiter that separates fields, or text.
fn first_special(line: &[u8], dialect: Dialect, ends: LineEnd) -> Option<usize> {
    let stray = if ends == LineEnd::Feed { b'\r' } else { b'\n' };
    match (dialect.quote, dialect.escape) {
        (None, _) => memchr(stray, line),
        (Some(quote), None) => memchr2(quote, stray, line),
        (Some(quote), Some(escape)) => memchr3(quote, escape, stray, line),
    }
}

/// A record that is looked at byte by byte.
struct Walk<'b> {
    bytes: &'b [u8],
    is_last: bool,
    splitter: &'b Splitter,
    fields: &'b mut Fields,
    /// The first fault that still leaves the rest of the record readable.
    fault: Option<Fault>,
}

/// What ends a field.
enum After {
    Delimiter,
    Record(Split),
}

impl Walk<'_> {
    /// Goes on at a field that begins at `start`.
    fn record(mut self, start: usize) -> Split {
        let split = self.fields(start);
        match (split, self.fault) {
            (Split::Record { next, .. } | Split::Malformed { next, .. }, Some(fault)) => {
                Split::Malformed { fault, next }
            }
            _ => split,
        }
    }

    fn fields(&mut self, start: usize) -> Split {
        let mut at = start;
        loop {
            let quote = self.splitter.dialect.quote;
            let is_enclosed = quote.is_some() && self.bytes.get(at).copied() == quote;
            let end = if is_enclosed { self.enclosed(at) } else { self.plain(at) };
            let end = match end {
                Ok(end) => end,
                Err(split) => return split,
            };
            match self.after(at, end) {
                After::Delimiter => at = end + 1,
                After::Record(split) => return split,
            }
        }
    }

    /// A field without quotes around it. Gives the place where it ends.
    fn plain(&mut self, start: usize) -> Result<usize, Split> {
        let Splitter { dialect, ends, ends_plain } = self.splitter;
        let mut at = start;
        loop {
            while at < self.bytes.len() && !ends_plain[usize::from(self.bytes[at])] {
                at += 1;
            }
            match self.bytes.get(at).copied() {
                None => break,
                Some(byte) if byte == dialect.delimiter => break,
                Some(b'\r' | b'\n') => match ends.at(self.bytes, at, self.is_last) {
                    Ending::Line(_) | Ending::File => break,
                    Ending::Unknown => return Err(Split::More),
                    Ending::None => self.note(at, FaultKind::StrayLineEnd),
                },
                byte if byte == dialect.quote => self.note(at, FaultKind::QuoteWithin),
                // What is left is an escape.
                Some(_) => {
                    let next = self.bytes.get(at + 1).copied();
                    if next.is_none() && !self.is_last {
                        return Err(Split::More);
                    }
                    if next.is_none_or(|next| next == dialect.delimiter || matches!(next, b'\r' | b'\n')) {
                        self.note(at, FaultKind::EscapeOutside);
                    }
                }
            }
            at += 1;
        }
        if at - start > FIELD_BYTES_MAX {
            return Err(Split::TooLarge);
        }
        self.fields.push(start, at);
        Ok(at)
    }

    /// A field between quotes. Gives the place after the quote that closes.
    fn enclosed(&mut self, open: usize) -> Result<usize, Split> {
        let quote = self.bytes[open];
        let escape = self.splitter.dialect.escape.unwrap_or(quote);
        let copied_from = self.fields.copied.len();
        // What is not copied yet, and what is not looked at yet.
        let (mut piece, mut at) = (open + 1, open + 1);
        loop {
            let Some(hit) = memchr2(quote, escape, &self.bytes[at..]).map(|found| at + found) else {
                return Err(self.unclosed(open));
            };
            if hit - open > FIELD_BYTES_MAX {
                return Err(self.closes_too_late(open));
            }
            let next = self.bytes.get(hit + 1).copied();
            if next.is_none() && !self.is_last {
                return Err(Split::More);
            }
            let is_escape = self.bytes[hit] != quote || (self.splitter.dialect.escape.is_none() && next == Some(quote));
            if !is_escape {
                self.push_enclosed(piece, hit, copied_from, piece > open + 1);
                return Ok(hit + 1);
            }
            if next.is_none() {
                return Err(self.unclosed(open));
            }
            self.fields.copied.extend_from_slice(&self.bytes[piece..hit]);
            (piece, at) = (hit + 1, hit + 2);
        }
    }

    /// A field whose last piece is `piece..end`; those before it are copied already.
    fn push_enclosed(&mut self, piece: usize, end: usize, copied_from: usize, is_copied: bool) {
        if !is_copied {
            return self.fields.push(piece, end);
        }
        self.fields.copied.extend_from_slice(&self.bytes[piece..end]);
        self.fields.places.push(Field { start: copied_from, end: self.fields.copied.len(), is_copied });
    }

    /// The bytes end inside of quotes.
    fn unclosed(&self, open: usize) -> Split {
        if self.bytes.len() - open > FIELD_BYTES_MAX {
            return self.closes_too_late(open);
        }
        if self.is_last { self.malformed(open, FaultKind::Unclosed) } else { Split::More }
    }

    fn closes_too_late(&self, open: usize) -> Split {
        let is_one_line =
            memchr(self.splitter.ends.byte(), &self.bytes[open..]).is_none_or(|length| length > FIELD_BYTES_MAX);
        if is_one_line { Split::TooLarge } else { self.malformed(open, FaultKind::ClosesTooLate) }
    }

    /// What comes after the field from `start` to `end`.
    fn after(&self, start: usize, end: usize) -> After {
        if self.bytes.get(end).copied() == Some(self.splitter.dialect.delimiter) {
            return After::Delimiter;
        }
        After::Record(match self.splitter.ends.at(self.bytes, end, self.is_last) {
            Ending::Line(next) => Split::Record { length: end, next, has_line_end: true },
            Ending::File => Split::Record { length: end, next: self.bytes.len(), has_line_end: false },
            Ending::Unknown => Split::More,
            Ending::None => self.malformed(start, FaultKind::AfterQuote { followed_at: end }),
        })
    }

    fn note(&mut self, at: usize, kind: FaultKind) {
        self.fault.get_or_insert(Fault { at, kind });
    }

    /// The line of a fault, as soon as its end is there.
    fn malformed(&self, at: usize, kind: FaultKind) -> Split {
        let next = match memchr(self.splitter.ends.byte(), &self.bytes[at..]) {
            Some(length) => at + length + 1,
            None if self.is_last => self.bytes.len(),
            None => return Split::More,
        };
        Split::Malformed { fault: Fault { at, kind }, next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RFC: Dialect = Dialect { delimiter: b',', quote: Some(b'"'), escape: None, quotes_within: false };
    const EXCEL: Dialect = Dialect { quotes_within: true, ..RFC };
    const BACKSLASH: Dialect = Dialect { escape: Some(b'\\'), ..RFC };

    /// The records of a text, a line each: its line number, then its fields between bars, or what is wrong.
    fn seen(text: &str, dialect: Dialect) -> Vec<String> {
        let bytes = text.as_bytes();
        let ends = LineEnd::of(bytes, dialect);
        let splitter = Splitter::new(dialect, ends);
        let mut fields = Fields::default();
        let (mut at, mut all) = (0, Vec::new());
        while at < bytes.len() {
            let line = 1 + memchr::memchr_iter(ends.byte(), &bytes[..at]).count();
            let (what, next) = match splitter.split(&bytes[at..], true, &mut fields) {
                Split::Record { next, .. } => (texts(&bytes[at..], &fields).join("|"), next),
                Split::Malformed { fault, next } => (format!("{:?} at {}", fault.kind, fault.at), next),
                Split::TooLarge | Split::More => panic!("the whole text is there: {text:?}"),
            };
            all.push(format!("{line}: {what}"));
            at += next;
        }
        all
    }

    fn texts(bytes: &[u8], fields: &Fields) -> Vec<String> {
        let text = |field: &Field| {
            let from = if field.is_copied { fields.copied.as_slice() } else { bytes };
            String::from_utf8(from[field.start..field.end].to_vec()).unwrap()
        };
        fields.places.iter().map(text).collect()
    }

    #[test]
    fn records_are_split_by_the_letter() {
        for (text, expected) in [
            ("a,b\n", vec!["1: a|b"]),
            ("a,\r\n,b", vec!["1: a|", "2: |b"]),
            ("\"a\",\"\"\n", vec!["1: a|"]),
            ("\"\"\"\",\"x\"\"y\",\"z\"\n", vec!["1: \"|x\"y|z"]),
            ("\"a\r\nb\",c\r\nd,e\r\n", vec!["1: a\r\nb|c", "3: d|e"]),
            ("a,b\r\r\nc,d\r\r\n", vec!["1: a|b", "2: c|d"]),
            ("a,b\rc,d\r", vec!["1: a|b", "2: c|d"]),
            ("a,b\rc,\"d\"\r", vec!["1: a|b", "2: c|d"]),
            ("a\rb,\"c\nd\"\re", vec!["1: a", "2: b|c\nd", "3: e"]),
        ] {
            assert_eq!(seen(text, RFC), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_of_the_form_costs_its_own_line() {
        for (text, expected) in [
            ("\"a\" b,c\nd,e\n", vec!["1: AfterQuote { followed_at: 3 } at 0", "2: d|e"]),
            ("\"a\"b\"\nd\n", vec!["1: AfterQuote { followed_at: 3 } at 0", "2: d"]),
            ("\"a\nb,\"c\"\nd,e\n", vec!["1: AfterQuote { followed_at: 6 } at 0", "2: b|c", "3: d|e"]),
            ("a,\"b\nc,d\ne,f", vec!["1: Unclosed at 2", "2: c|d", "3: e|f"]),
            ("a, \"b\"\nc,d\n", vec!["1: QuoteWithin at 3", "2: c|d"]),
            ("5\" pipe\nx\n", vec!["1: QuoteWithin at 1", "2: x"]),
            ("\"a\\\"b\"\nx\n", vec!["1: AfterQuote { followed_at: 4 } at 0", "2: x"]),
            ("h\na\rb\nc\n", vec!["1: h", "2: StrayLineEnd at 1", "3: c"]),
            ("h\r1\n2\r3\r", vec!["1: h", "2: StrayLineEnd at 1", "3: 3"]),
            // What a properly closed field encloses is no line of its own.
            ("5\" p,\"x\ny\"\nz\n", vec!["1: QuoteWithin at 1", "3: z"]),
            ("h\na\rb,\"x\ny\"\nz\n", vec!["1: h", "2: StrayLineEnd at 1", "4: z"]),
            ("5\" p,\"x\ny\nz\n", vec!["1: QuoteWithin at 1", "2: y", "3: z"]),
            ("\"a\nb\",\"c\"d\ne,f\n", vec!["1: AfterQuote { followed_at: 9 } at 6", "3: e|f"]),
        ] {
            assert_eq!(seen(text, RFC), expected, "{text:?}");
        }
    }

    #[test]
    fn dialects_allow_what_they_say() {
        assert_eq!(seen("5\" pipe, \"x\"\n", EXCEL), ["1: 5\" pipe| \"x\""]);
        assert_eq!(seen("\"a\"b\n", EXCEL), ["1: AfterQuote { followed_at: 3 } at 0"]);
        assert_eq!(seen("\"a\\\"b\\\\\",c:\\d\n", BACKSLASH), ["1: a\"b\\|c:\\d"]);
        assert_eq!(seen("a\\,b\nc\n", BACKSLASH), ["1: EscapeOutside at 1", "2: c"]);
        assert_eq!(seen("\"a\"\"b\"\nc\n", BACKSLASH), ["1: AfterQuote { followed_at: 3 } at 0", "2: c"]);
        let unquoted = Dialect { quote: None, ..RFC };
        assert_eq!(seen("\"a,b\"\n", unquoted), ["1: \"a|b\""]);
    }

    #[test]
    fn a_quote_that_closes_too_late_costs_its_own_line_and_no_more_time() {
        let mut text = "a,\"b\n".to_owned();
        text.push_str(&"x,y\n".repeat(FIELD_BYTES_MAX / 4 + 1));
        let mut fields = Fields::default();
        let splitter = Splitter::new(RFC, LineEnd::Feed);
        let found = splitter.split(text.as_bytes(), false, &mut fields);
        let fault = Fault { at: 2, kind: FaultKind::ClosesTooLate };
        assert_eq!(found, Split::Malformed { fault, next: 5 });
        let one_line = format!("a,\"{}", "b".repeat(FIELD_BYTES_MAX + 2));
        assert_eq!(splitter.split(one_line.as_bytes(), false, &mut fields), Split::TooLarge);
        // Each of a million lines opens a quote: every one is looked at twice at most.
        let quotes = "\"x\n".repeat(1_000_000);
        let (mut at, mut faults) = (0, 0);
        while let Split::Malformed { next, .. } = splitter.split(&quotes.as_bytes()[at..], true, &mut fields) {
            (at, faults) = (at + next, faults + 1);
            if at == quotes.len() {
                break;
            }
        }
        assert_eq!(faults, 1_000_000);
    }

    fn dialect() -> impl Strategy<Value = Dialect> {
        prop_oneof![Just(RFC), Just(EXCEL), Just(BACKSLASH)]
    }

    proptest! {
        /// What a window shows of a file decides nothing: with fewer bytes, more are asked for, or all is the same.
        #[test]
        fn windows_do_not_matter(text in r#"[ab",\n\r\\]{1,24}"#, dialect in dialect(), cut in 0..24_usize) {
            let bytes = text.trim_start_matches(['\r', '\n']).as_bytes();
            prop_assume!(!bytes.is_empty());
            for ends in [LineEnd::Feed, LineEnd::Return] {
                let (mut fields, mut fewer) = (Fields::default(), Fields::default());
                let splitter = Splitter::new(dialect, ends);
                let whole = splitter.split(bytes, true, &mut fields);
                let part = &bytes[..cut.min(bytes.len())];
                if part.is_empty() {
                    continue;
                }
                let found = splitter.split(part, false, &mut fewer);
                if found == Split::More {
                    continue;
                }
                prop_assert_eq!(found, whole);
                if matches!(found, Split::Record { .. }) {
                    prop_assert_eq!(texts(part, &fewer), texts(bytes, &fields));
                }
            }
        }
    }
}
