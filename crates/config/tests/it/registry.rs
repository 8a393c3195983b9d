//! Two made-up connectors, and a project to vary.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use flowgate_config::{Loaded, Report, Style};
use flowgate_core::connector::{ConnectorSpec, FieldError, OpenRequest, Opened};
use flowgate_core::{Code, ConnectorError, ErrorKind};
use serde_json::{Value, json};

/// `files`: a source whose reads are whole, except with a cursor. `crm`: a destination.
pub(crate) fn registry() -> Vec<ConnectorSpec> {
    vec![
        ConnectorSpec {
            name: "files",
            summary: "files of a directory",
            is_source: true,
            is_destination: false,
            sees_deletes: |settings| settings.get("cursor").is_none(),
            connection_schema: || {
                json!({
                    "type": "object",
                    "properties": { "path": { "type": "string" }, "format": { "$ref": "#/$defs/Format" } },
                    "additionalProperties": false,
                    "$defs": { "Format": { "enum": ["csv", "parquet"] } },
                })
            },
            stream_schema: || {
                let text = json!({ "type": "string" });
                json!({
                    "type": "object",
                    "properties": { "path": text, "cursor": text, "table": text },
                    "additionalProperties": false,
                })
            },
            check_connection: check_files,
            check_stream: |_| Ok(()),
            open: refuse_to_open,
        },
        ConnectorSpec {
            name: "dataverse",
            summary: "Dataverse, or its emulator",
            is_source: false,
            is_destination: true,
            sees_deletes: |_| false,
            connection_schema: || json!({ "type": "object", "properties": { "emulator": {}, "url": {} } }),
            stream_schema: || json!({}),
            check_connection: |_| Ok(()),
            check_stream: |_| Ok(()),
            open: refuse_to_open,
        },
    ]
}

fn check_files(settings: &Value) -> Result<(), Vec<FieldError>> {
    match (settings.get("path"), settings.get("format").and_then(Value::as_str)) {
        (None, _) => Err(vec![FieldError::missing([""; 0], "path")]),
        (_, None | Some("csv" | "parquet")) => Ok(()),
        (_, Some(other)) => Err(vec![
            FieldError::new(["format"], format!("`{other}` is not a format")).hint("formats: `csv`, `parquet`"),
        ]),
    }
}

fn refuse_to_open(_: OpenRequest<'_>) -> Result<Opened, ConnectorError> {
    Err(ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "a made-up connector"))
}

/// A correct project of three files; `with` puts others beside or over them.
pub(crate) const FLOWGATE: &str = "\
flowgate: 1
connections:
  works: { files: { path: data/works.csv } }
  crm: { dataverse: { emulator: {} } }
";
pub(crate) const FLOW: &str = "\
flow: cases
streams:
  enquiry: { from: works, key: [id] }
loads:
  cases:
    into: crm
    table: incident
    select: cases.sql
    match: [wr_reference]
";
pub(crate) const SQL: &str = "SELECT id AS wr_reference, title FROM enquiry\n";

pub(crate) fn load(files: &[(&str, &str)], environment: Option<&str>) -> Result<Loaded, Report> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("flowgate.yaml", FLOWGATE), ("flows/cases.yaml", FLOW), ("flows/cases.sql", SQL)]);
    write(dir.path(), files);
    flowgate_config::load(dir.path(), environment, &registry())
}

pub(crate) fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
}

/// What a person sees of a project that does not pass.
pub(crate) fn mistakes(files: &[(&str, &str)]) -> String {
    load(files, None).unwrap_err().render(Style::default())
}
