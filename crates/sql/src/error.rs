//! What can be wrong with a transform, in words for the person who wrote it.

use std::fmt;

use datafusion::common::{DataFusionError, SchemaError};
use flowgate_core::Code;
use flowgate_core::nearest::near;

use crate::growth::Oversized;

/// Names that are offered for one that is not there.
const NAMES_OFFERED_MAX: usize = 2;

/// Line and column within the SELECT, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A refused or failed transform.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    #[error("SQL does not parse: {message}")]
    Syntax { message: String, place: Option<Place> },
    #[error("a transform is one SELECT, and this is {found}")]
    NotASelect { found: String },
    #[error("SQL names the table `{name}`, which is not a stream of this flow")]
    UnknownTable { name: String, nearest: Option<String> },
    #[error("SQL names the column `{name}`, which is not there")]
    UnknownColumn { name: String, nearest: Vec<String>, place: Option<Place> },
    #[error("SQL returns the column `{name}` more than once")]
    DuplicateColumn { name: String },
    #[error("SQL uses {what}, which a transform may not")]
    Forbidden { what: String },
    #[error("SQL calls `{name}`, whose answer is another one in each run")]
    Unrepeatable { name: String, place: Option<Place> },
    #[error("SQL needed more than the {limit_mib} MiB allowed: {message}")]
    OutOfMemory { limit_mib: usize, message: String },
    #[error("SQL is too large to be planned: {what} than {max}")]
    TooLarge { what: String, max: usize, place: Option<Place> },
    #[error("SQL failed: {message}")]
    Failed { message: String, place: Option<Place> },
    #[error("no space left while SQL was running: {message}")]
    DiskFull { message: String },
}

impl SqlError {
    pub fn code(&self) -> Code {
        match self {
            Self::Syntax { .. } => Code::SQL_SYNTAX,
            Self::NotASelect { .. } => Code::SQL_NOT_A_SELECT,
            Self::UnknownTable { .. } => Code::SQL_UNKNOWN_TABLE,
            Self::UnknownColumn { .. } => Code::SQL_UNKNOWN_COLUMN,
            Self::DuplicateColumn { .. } => Code::SQL_DUPLICATE_COLUMN,
            Self::Forbidden { .. } | Self::Unrepeatable { .. } => Code::SQL_FORBIDDEN,
            Self::OutOfMemory { .. } => Code::SQL_OUT_OF_MEMORY,
            Self::TooLarge { .. } => Code::SQL_TOO_LARGE,
            Self::Failed { .. } => Code::SQL_FAILED,
            Self::DiskFull { .. } => Code::DISK_FULL,
        }
    }

    /// Where in the SELECT, when that is known.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Syntax { place, .. }
            | Self::UnknownColumn { place, .. }
            | Self::Unrepeatable { place, .. }
            | Self::TooLarge { place, .. }
            | Self::Failed { place, .. } => *place,
            _ => None,
        }
    }

    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Unrepeatable { .. } => {
                vec!["the same data would be written anew by every run: take the moment from the source".to_owned()]
            }
            Self::UnknownTable { nearest: Some(nearest), .. } => vec![format!("did you mean `{nearest}`?")],
            Self::UnknownColumn { nearest, .. } if !nearest.is_empty() => {
                let names: Vec<_> = nearest.iter().map(|name| format!("`{name}`")).collect();
                vec![
                    format!("did you mean {}?", names.join(" or ")),
                    "a name with capitals needs double quotes: \"NAME\"".into(),
                ]
            }
            Self::DuplicateColumn { name } => vec![format!("name each one with AS, or select `{name}` once")],
            Self::TooLarge { .. } => {
                vec!["a list of values is shorter as IN (…), and a long one is a stream of its own to join with".into()]
            }
            Self::OutOfMemory { .. } => vec!["raise `staging.embedded.memory`, or join fewer columns".into()],
            Self::Failed { message, .. } if message.contains("cast") || message.contains("Cast") => {
                vec!["TRY_CAST gives null instead of failing; a `not_null` check then sets the row aside".into()]
            }
            _ => Vec::new(),
        }
    }

    /// Turns an error of planning or running into ours. `limit_bytes` is the memory limit in force.
    pub(crate) fn from_datafusion(error: &DataFusionError, limit_bytes: usize) -> Self {
        let place = error
            .diagnostic()
            .and_then(|diagnostic| diagnostic.span)
            .map(|span| Place { line: span.start.line as usize, column: span.start.column as usize });
        match error.find_root() {
            DataFusionError::SQL(parser, _) => syntax(&parser.to_string()),
            DataFusionError::SchemaError(schema, _) => from_schema_error(schema, place),
            DataFusionError::ResourcesExhausted(message) => {
                Self::OutOfMemory { limit_mib: limit_bytes >> 20, message: first_line(message) }
            }
            DataFusionError::External(error) if error.is::<Oversized>() => {
                Self::OutOfMemory { limit_mib: limit_bytes >> 20, message: error.to_string() }
            }
            DataFusionError::IoError(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Self::DiskFull { message: error.to_string() }
            }
            root => match duplicate_column(&root.to_string()) {
                Some(name) => Self::DuplicateColumn { name },
                None => Self::Failed { message: plain_message(root), place },
            },
        }
    }
}

fn from_schema_error(error: &SchemaError, place: Option<Place>) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let candidates = valid_fields.iter().map(|column| column.name.as_str());
            let mut nearest = meant(&field.name, candidates);
            nearest.truncate(NAMES_OFFERED_MAX);
            SqlError::UnknownColumn { name: field.name.clone(), nearest, place }
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::DuplicateColumn { name: name.clone() }
        }
        SchemaError::AmbiguousReference { field } => SqlError::Failed {
            message: format!("the column `{}` is in more than one table: write `table.{}`", field.name, field.name),
            place,
        },
    }
}

/// The planner says this only as text: `… unique expression names but the expression "a.x" at position 0
/// and "upper(a.y) AS x" at position 1 have the same name …`.
fn duplicate_column(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unique expression names")?;
    let second = rest.split(" and \"").nth(1)?.split("\" at position").next()?;
    let name =
        second.rsplit_once(" AS ").map_or_else(|| second.rsplit('.').next().unwrap_or(second), |(_, alias)| alias);
    Some(name.trim_matches('"').to_owned())
}

/// The parser says where as text: `… at Line: 1, Column: 8`.
fn syntax(message: &str) -> SqlError {
    let number_after = |mark: &str| {
        let rest = message.split(mark).nth(1)?;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    let place = number_after("Line: ").zip(number_after("Column: ")).map(|(line, column)| Place { line, column });
    let text = message.split(" at Line:").next().unwrap_or(message);
    let text = text.trim_start_matches("sql parser error: ");
    SqlError::Syntax { message: text.to_owned(), place }
}

/// The message without DataFusion's class prefix and help that speaks of its own settings.
fn plain_message(error: &DataFusionError) -> String {
    let text = first_line(&error.to_string());
    match text.split_once(": ") {
        Some((class, rest)) if class.ends_with("error") || class.ends_with("Error") => rest.to_owned(),
        _ => text,
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The names that `name` may have been meant to be, the nearest first; `_row` and its like are not meant.
pub(crate) fn meant<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    near(name, candidates.filter(|candidate| !candidate.starts_with('_'))).into_iter().map(str::to_owned).collect()
}
