//! The table of connectors. A new one is a file in `connectors/`, a `mod` line and a row here.

use flowgate_core::connector::ConnectorSpec;

use crate::settings::{check, schema};

#[path = "connectors/dataverse.rs"]
mod dataverse;
#[path = "connectors/files.rs"]
mod files;
#[path = "connectors/postgres.rs"]
mod postgres;
#[path = "connectors/sqlite.rs"]
mod sqlite;

/// Every connector, by name.
pub const CONNECTORS: &[ConnectorSpec] = &[
    ConnectorSpec {
        name: "dataverse",
        summary: "tables of a Dynamics 365 / Microsoft Dataverse environment",
        is_source: true,
        is_destination: true,
        sees_deletes: dataverse::sees_deletes,
        connection_schema: schema::<dataverse::ConnectionSettings>,
        stream_schema: schema::<dataverse::StreamSettings>,
        check_connection: check::<dataverse::ConnectionSettings>,
        check_stream: check::<dataverse::StreamSettings>,
        open: dataverse::open,
    },
    ConnectorSpec {
        name: "files",
        summary: "CSV, JSON lines and Parquet files, plain or compressed",
        is_source: true,
        is_destination: false,
        sees_deletes: files::sees_deletes,
        connection_schema: schema::<files::FileSettings>,
        stream_schema: schema::<files::FileSettings>,
        check_connection: check::<files::FileSettings>,
        check_stream: check::<files::FileSettings>,
        open: files::open,
    },
    ConnectorSpec {
        name: "postgres",
        summary: "tables and views of a PostgreSQL database",
        is_source: true,
        is_destination: false,
        sees_deletes: postgres::sees_deletes,
        connection_schema: schema::<postgres::ConnectionSettings>,
        stream_schema: schema::<postgres::StreamSettings>,
        check_connection: check::<postgres::ConnectionSettings>,
        check_stream: check::<postgres::StreamSettings>,
        open: postgres::open,
    },
    ConnectorSpec {
        name: "sqlite",
        summary: "tables and views of a SQLite database file",
        is_source: true,
        is_destination: false,
        sees_deletes: sqlite::sees_deletes,
        connection_schema: schema::<sqlite::ConnectionSettings>,
        stream_schema: schema::<sqlite::StreamSettings>,
        check_connection: check::<sqlite::ConnectionSettings>,
        check_stream: check::<sqlite::StreamSettings>,
        open: sqlite::open,
    },
];

pub use dataverse::open_dataverse;

/// The connector of this name.
pub fn find(name: &str) -> Option<&'static ConnectorSpec> {
    CONNECTORS.iter().find(|spec| spec.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connector_file_has_its_row() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/connectors");
        let mut files: Vec<_> = fs_err::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let mut rows: Vec<_> = CONNECTORS.iter().map(|spec| spec.name).collect();
        rows.sort_unstable();
        assert_eq!(rows, files);
    }
}
