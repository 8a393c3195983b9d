//! A YAML document as a tree in which every key and value knows its place.
//!
//! The YAML accepted is the plain part people write: maps, lists and scalars. Anchors, aliases,
//! tags, merge keys, several documents in one file and keys that occur twice are refused, each by
//! its own message, because all of them make a file say something else than it seems to.
//! Plain scalars are typed by YAML's core schema, with one exception: digits with leading zeros
//! stay text, as codes and telephone numbers mean it.

use std::sync::Arc;

use flowgate_core::Code;
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::Value;

use crate::place::{Place, SourceFile};
use crate::report::{Problem, Report};

/// Levels of maps and lists in one file.
pub(crate) const DEPTH_MAX: usize = 32;
/// Keys of one block, and items of one list.
const ENTRIES_MAX: usize = 10_000;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) data: Data,
}

#[derive(Debug, Clone)]
pub(crate) enum Data {
    Scalar {
        text: String,
        /// Written without quotes: may be a number, a boolean or nothing.
        is_plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// The entries of a map; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn entries_mut(&mut self) -> &mut [Entry] {
        match &mut self.data {
            Data::Map(entries) => entries,
            _ => &mut [],
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries_mut().iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    /// The text of a scalar that is not null.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The items of a list, or a single scalar as a list of one.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            Data::Scalar { .. } if !self.is_null() => std::slice::from_ref(self),
            _ => &[],
        }
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(Node::text).map(str::to_owned).collect()
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar { text, is_plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for "expected …, found …".
    pub(crate) fn found(&self) -> String {
        match &self.data {
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a block of keys".to_owned(),
            Data::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Data::Scalar { text, .. } => match self.to_json() {
                Value::Number(_) => format!("the number `{text}`"),
                Value::Bool(_) => format!("`{text}`"),
                _ => format!("the text `{}`", cut(text)),
            },
        }
    }

    /// The value without places, for connectors.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Scalar { text, is_plain: true } => plain_to_json(text),
            Data::Scalar { text, .. } => Value::String(text.clone()),
            Data::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Data::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
        }
    }
}

fn cut(text: &str) -> String {
    const SHOWN_LENGTH_MAX: usize = 60;
    let first_line = text.lines().next().unwrap_or_default();
    if first_line.chars().count() <= SHOWN_LENGTH_MAX && first_line.len() == text.trim_end().len() {
        return first_line.to_owned();
    }
    first_line.chars().take(SHOWN_LENGTH_MAX).chain("…".chars()).collect()
}

fn plain_to_json(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.trim_start_matches(['-', '+']);
    let looks_numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    if !looks_numeric || has_leading_zero {
        return Value::String(text.to_owned());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Value::from(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Value::from(number),
        _ => Value::String(text.to_owned()),
    }
}

/// Reads one document. `None` when nothing can be made of it; problems say why.
pub(crate) fn parse(file: &Arc<SourceFile>, report: &mut Report) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        disallow_directives: true,
    };
    let parser = Parser::new_from_str_with_options(file.text(), options);
    let mut builder = Builder { file, parser, report };
    match builder.document() {
        Ok(Some(node)) => Some(node),
        Ok(None) => {
            builder.report.add(Problem::new(Code::YAML_SYNTAX, "the file is empty").in_file(file.name()));
            None
        }
        Err(Stopped::Reported) => None,
        Err(Stopped::Syntax(error)) => {
            builder.report.add(syntax_problem(file, &error));
            None
        }
    }
}

enum Stopped {
    Reported,
    Syntax(Box<ScanError>),
}

struct Builder<'a> {
    file: &'a Arc<SourceFile>,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    report: &'a mut Report,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Stopped> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(Stopped::Syntax(Box::new(error))),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Stopped> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) if root.is_some() => {
                    let message = "a second document in one file";
                    self.refuse(&span, message, "keep one document, without `---` after the first line");
                    return Err(Stopped::Reported);
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                // An alias for a document was refused, and nothing is left to read.
                event => root = Some(self.node(event, span, 0)?.ok_or(Stopped::Reported)?),
            }
        }
    }

    /// The node that begins with `event`. `None` for one that was refused.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Option<Node>, Stopped> {
        if depth > DEPTH_MAX {
            self.refuse(&span, &format!("more than {DEPTH_MAX} levels of nesting"), "flatten the file");
            return Err(Stopped::Reported);
        }
        let anchor = event.anchor_id().is_some_and(|id| id != 0);
        if anchor && !matches!(event, Event::Alias(_)) {
            self.refuse(
                &span,
                "an anchor (`&name`), which is not allowed here",
                "write the value out where it is used",
            );
        }
        if let Some(tag) = event.tag() {
            let message = format!("a tag (`{}`), which is not allowed here", Tag::original(tag));
            self.refuse(&span, &message, "write the value without it");
        }
        let place = self.place(&span);
        match event {
            Event::Scalar(text, style, ..) => {
                let is_plain = style == ScalarStyle::Plain;
                Ok(Some(Node { place, data: Data::Scalar { text: text.into_owned(), is_plain } }))
            }
            Event::SequenceStart(..) => Ok(Some(Node { place, data: Data::List(self.list(depth)?) })),
            Event::MappingStart(..) => Ok(Some(Node { place, data: Data::Map(self.map(depth)?) })),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let message = "an alias (`*name`), which is not allowed here";
                self.refuse(&span, message, "write the value out where it is used");
                Ok(None)
            }
            _ => {
                self.refuse(&span, "not YAML: the file ends inside a block", "complete the block");
                Err(Stopped::Reported)
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Stopped> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (_, span) if items.len() == ENTRIES_MAX => return Err(self.too_many(&span)),
                (event, span) => items.extend(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Stopped> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            if entries.len() == ENTRIES_MAX {
                return Err(self.too_many(&span));
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            let (Some(key), Some(value)) = (key, value) else { continue };
            self.entry(&mut entries, key, value);
        }
    }

    fn entry(&mut self, entries: &mut Vec<Entry>, key: Node, value: Node) {
        let Data::Scalar { text, .. } = key.data else {
            let problem = Problem::new(Code::YAML_SYNTAX, "a key that is not text").at(&key.place);
            let hint = "a value such as `${var:name}` needs quotes inside `{ }`";
            self.report.add(problem.hint(hint));
            return;
        };
        if let Some(first) = entries.iter().find(|entry| entry.key == text) {
            let problem = Problem::new(Code::DUPLICATE_NAME, format!("key `{text}` stands twice in one block"));
            self.report.add(problem.at(&key.place).value(text).also(&first.key_place, "it stands here first"));
            return;
        }
        entries.push(Entry { key: text, key_place: key.place, value });
    }

    fn too_many(&mut self, span: &Span) -> Stopped {
        let message = format!("more than {ENTRIES_MAX} entries in one block");
        self.refuse(span, &message, "split the file");
        Stopped::Reported
    }

    fn refuse(&mut self, span: &Span, message: &str, hint: &str) {
        let problem = Problem::new(Code::YAML_SYNTAX, message).at(&self.place(span)).hint(hint);
        self.report.add(problem);
    }

    fn place(&self, span: &Span) -> Place {
        let start = span.start.byte_offset().unwrap_or(0);
        Place::new(self.file, start, span.end.byte_offset().unwrap_or(start))
    }
}

fn syntax_problem(file: &Arc<SourceFile>, error: &ScanError) -> Problem {
    let start = error.marker().byte_offset().unwrap_or(file.text().len());
    let place = Place::new(file, start, start + 1);
    let detail = error.info();
    let detail = detail.trim_end_matches('.');
    let mut problem = Problem::new(Code::YAML_SYNTAX, format!("not YAML: {detail}")).at(&place);
    let line = place.snippet();
    if line.contains('{') && line.contains(": ${") {
        problem = problem.hint("inside `{ }`, a value such as `\"${var:name}\"` needs quotes");
    }
    if line.starts_with('\t') || line.trim_start_matches(' ').starts_with('\t') {
        problem = problem.hint("indent with blanks: YAML does not allow tabs");
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        let mut report = Report::default();
        let node = parse(&Arc::new(SourceFile::new("a.yaml", text.to_owned())), &mut report);
        assert_eq!(report.problems.len(), 0, "{report:?}");
        node.unwrap()
    }

    #[test]
    fn plain_scalars_are_typed_and_codes_stay_text() {
        let node = read("[1, -2, 1.5, true, ~, 0117, 1e3, '1', x, 0, 0.5]");
        let expected = serde_json::json!([1, -2, 1.5, true, null, "0117", 1000.0, "1", "x", 0, 0.5]);
        assert_eq!(node.to_json(), expected);
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let node = read("é: { b: 'two' }\ntext: |\n  first\n  second\n");
        let value = node.get("é").and_then(|inner| inner.get("b")).unwrap();
        assert_eq!((value.place.line(), value.place.column(), value.place.width()), (1, 9, 5));
        let key = &node.entry("text").unwrap().key_place;
        assert_eq!((key.line(), key.column()), (2, 1));
        let text = &node.get("text").unwrap().place;
        assert_eq!((text.line(), text.column(), text.width()), (3, 3, 5));
    }
}
