//! What the server says about its tables.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use flowgate_core::ConnectorError;
use tokio_postgres::{Client, Error, Row};

use super::link::failed;
use super::values::ColumnType;
use crate::columns::quote_identifier;

/// A table, view, materialised view or foreign table.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    oid: u32,
    schema: String,
    name: String,
    /// Whether rows carry the number of the transaction that wrote them.
    pub(crate) has_row_versions: bool,
}

impl Relation {
    /// `public.customer`, as the stream's settings name it.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) column_type: ColumnType,
    /// The type as SQL writes it, for casts.
    pub(crate) sql_type: String,
}

/// The relations this user may see, system schemas left out.
pub(crate) async fn relations(client: &Client, shown: &str) -> Result<Vec<Relation>, ConnectorError> {
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind IN ('r', 'p', 'm') \
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND n.nspname !~ '^pg_' \
               AND n.nspname <> 'information_schema' AND NOT c.relispartition \
               AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 2, 3";
    let rows = client.query(sql, &[]).await.map_err(|error| failed(shown, error))?;
    let relation = |row: &Row| {
        Ok(Relation {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            has_row_versions: row.try_get(3)?,
        })
    };
    rows.iter().map(relation).collect::<Result<_, Error>>().map_err(|error| failed(shown, error))
}

/// The columns of a relation, in order. A domain counts as the type below it.
pub(crate) async fn columns(client: &Client, shown: &str, relation: &Relation) -> Result<Vec<Column>, ConnectorError> {
    let sql = "SELECT a.attname::text, \
               CASE WHEN b.typnamespace = 'pg_catalog'::regnamespace THEN b.typname::text ELSE '' END, \
               CASE WHEN t.typbasetype <> 0 THEN t.typtypmod ELSE a.atttypmod END, \
               pg_catalog.format_type(a.atttypid, a.atttypmod) \
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
               JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typbasetype <> 0 THEN t.typbasetype ELSE t.oid END \
               WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let rows = client.query(sql, &[&relation.oid]).await.map_err(|error| failed(shown, error))?;
    let column = |row: &Row| {
        Ok(Column {
            name: row.try_get(0)?,
            column_type: ColumnType::of(row.try_get(1)?, row.try_get(2)?),
            sql_type: row.try_get(3)?,
        })
    };
    rows.iter().map(column).collect::<Result<_, Error>>().map_err(|error| failed(shown, error))
}

/// The primary key's columns, in its order; none without one.
pub(crate) async fn key(client: &Client, shown: &str, relation: &Relation) -> Result<Vec<String>, ConnectorError> {
    let sql = "SELECT a.attname::text FROM pg_catalog.pg_index i \
               CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place) \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
               WHERE i.indrelid = $1 AND i.indisprimary ORDER BY k.place";
    let rows = client.query(sql, &[&relation.oid]).await.map_err(|error| failed(shown, error))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, Error>>().map_err(|error| failed(shown, error))
}

/// The Arrow schema of these columns.
pub(crate) fn schema(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| Field::new(&column.name, column.column_type.arrow_type(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
