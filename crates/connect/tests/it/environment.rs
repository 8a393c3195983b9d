//! As much of a Dataverse environment as reading one table takes: sign-in, definitions, pages and
//! change tracking. The table is called `stream`; its id is `streamid`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use uuid::Uuid;

const ORGANIZATION: &str = "5a1c2f8e-0000-4000-8000-000000000003";
const PAGE_ROWS: usize = 5_000;

/// One row: name and stamp.
type Row = (String, i64);

#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<Uuid, Row>,
    /// The version in which each row, living or deleted, last changed.
    versions: BTreeMap<Uuid, u64>,
    version: u64,
    /// The text column's name.
    text_column: &'static str,
}

pub(crate) struct Environment {
    pub(crate) url: String,
    table: Arc<Mutex<Table>>,
}

#[derive(Clone)]
struct Shared {
    url: String,
    table: Arc<Mutex<Table>>,
}

impl Environment {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let table = Arc::new(Mutex::new(Table { text_column: "name", ..Table::default() }));
        let shared = Shared { url: url.clone(), table: Arc::clone(&table) };
        let router = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, table }
    }

    /// Makes the table hold exactly these rows; what stays the same keeps its version.
    pub(crate) fn put(&self, rows: BTreeMap<Uuid, Row>) {
        let table = &mut *self.table.lock().unwrap();
        table.version += 1;
        let ids: BTreeSet<Uuid> = table.rows.keys().chain(rows.keys()).copied().collect();
        for id in ids {
            if table.rows.get(&id) != rows.get(&id) {
                table.versions.insert(id, table.version);
            }
        }
        table.rows = rows;
    }

    pub(crate) fn rename_text_column(&self, name: &'static str) {
        self.table.lock().unwrap().text_column = name;
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let path = request.uri().path().trim_start_matches("/api/data/v9.2/").to_owned();
    let table = shared.table.lock().unwrap();
    let body = match path.as_str() {
        "/token" => json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600}),
        "WhoAmI" => json!({"UserId": ORGANIZATION, "BusinessUnitId": ORGANIZATION, "OrganizationId": ORGANIZATION}),
        "streams" => page(&shared.url, &table, &query),
        "EntityDefinitions" => json!({ "value": [entity()] }),
        "EntityDefinitions(LogicalName='stream')" => entity(),
        path if path.starts_with("EntityDefinitions(LogicalName='stream')/") => {
            json!({ "value": definitions(path, table.text_column) })
        }
        _ => json!({"value": []}),
    };
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn entity() -> Value {
    json!({"LogicalName": "stream", "EntitySetName": "streams", "PrimaryIdAttribute": "streamid",
        "PrimaryNameAttribute": "stamp", "ChangeTrackingEnabled": true})
}

fn definitions(path: &str, text_column: &str) -> Value {
    match path.rsplit('/').next().unwrap_or_default() {
        "Attributes" => json!([
            {"LogicalName": "streamid", "AttributeType": "Uniqueidentifier"},
            {"LogicalName": text_column, "AttributeType": "String"},
            {"LogicalName": "stamp", "AttributeType": "BigInt"},
        ]),
        cast if cast.ends_with(".StringAttributeMetadata") => json!([{"LogicalName": text_column, "MaxLength": 100}]),
        _ => json!([]),
    }
}

/// A page of all rows, or of what changed after the version in the delta token.
fn page(url: &str, table: &Table, query: &str) -> Value {
    let number = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.parse::<u64>().ok());
    let after = number("$deltatoken=");
    let skip = number("$skiptoken=").unwrap_or(0) as usize;
    let mut entries = Vec::new();
    for (id, version) in &table.versions {
        match table.rows.get(id) {
            Some((text, stamp)) if after.is_none_or(|after| *version > after) => {
                entries.push(json!({"streamid": id, table.text_column: text, "stamp": stamp}));
            }
            None if after.is_some_and(|after| *version > after) => {
                let context = format!("{url}/api/data/v9.2/$metadata#streams/$deletedEntity");
                entries.push(json!({"@odata.context": context, "id": id, "reason": "deleted"}));
            }
            _ => {}
        }
    }
    let end = (skip + PAGE_ROWS).min(entries.len());
    let mut page = json!({ "value": &entries[skip..end] });
    let base = format!("{url}/api/data/v9.2/streams");
    if end < entries.len() {
        let token = after.map(|after| format!("$deltatoken={after}&")).unwrap_or_default();
        page["@odata.nextLink"] = json!(format!("{base}?{token}$skiptoken={end}"));
    } else {
        page["@odata.deltaLink"] = json!(format!("{base}?$deltatoken={}", table.version));
    }
    page
}
