//! A service of one table, `account`, that keeps rows in memory and fails on request.
//!
//! It knows just enough of the protocol for the client's decisions to be seen: which requests came,
//! what was stored, and how often. Rows named `bad` are refused; account numbers are unique.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use flowgate_core::CancellationToken;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const ORGANIZATION: &str = "5a1c2f8e-0000-4000-8000-000000000003";

pub(crate) type Row = Map<String, Value>;

/// What goes wrong, once, with the next request whose line contains `on`.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) on: &'static str,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone)]
pub(crate) enum FaultKind {
    /// Answered so, and not run.
    Reply(Reply),
    /// The connection is cut before the request is run, or after.
    CutBefore,
    CutAfter,
    /// The person stops the run while it is answered as it should be, or after it was run and cut.
    Stop(CancellationToken),
    CutAfterAndStop(CancellationToken),
}

#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json; odata.metadata=minimal".to_owned())];
        Self { status, headers, body: body.to_string() }
    }

    pub(crate) fn html(status: u16) -> Self {
        let headers = vec![("content-type".to_owned(), "text/html".to_owned())];
        Self { status, headers, body: "<html>Sign in</html>".to_owned() }
    }

    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({"error": {"code": code, "message": message}})).with("REQ_ID", "req-1")
    }

    fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) rows: BTreeMap<String, Row>,
    /// `POST accounts/Microsoft.Dynamics.CRM.CreateMultiple`, in the order they came; metadata left out.
    pub(crate) requests: Vec<String>,
    /// Headers of the latest request, names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) bodies: Vec<String>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) has_bulk: bool,
    /// Of the metadata.
    pub(crate) version: u32,
    /// Answers to reads whose address contains the text.
    pub(crate) pages: Vec<(String, Reply)>,
    /// What it answers itself carries the service's marks; a fault's answer does not.
    pub(crate) marks_answers: bool,
    /// Of every answer.
    pub(crate) more_headers: Vec<(&'static str, &'static str)>,
    /// Without an answer; every other time after the request was run.
    pub(crate) closes_every_second: bool,
    pub(crate) connections: usize,
    pub(crate) closed: usize,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { has_bulk: true, ..State::default() }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state }
    }

    /// Locked until the end of the statement: one `state()` in each.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn fail(&self, on: &'static str, kind: FaultKind) {
        self.state().faults.push(Fault { on, kind });
    }

    /// The requests whose line contains `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.state().requests.iter().filter(|request| request.contains(text)).count()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Some(request) = read_request(&mut stream).await else { return };
    let (reply, more_headers) = {
        let mut state = state.lock().unwrap();
        state.connections += 1;
        let is_closed = state.closes_every_second && state.connections.is_multiple_of(2);
        state.closed += usize::from(is_closed);
        let is_run = !is_closed || state.connections.is_multiple_of(4);
        let reply = if is_run { state.handle(&request) } else { None };
        (reply.filter(|_| !is_closed), state.more_headers.clone())
    };
    let Some(reply) = reply else { return };
    let mut text = format!("HTTP/1.1 {} X\r\nx-ms-dop-hint: 4\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    for (name, value) in more_headers {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    write!(text, "content-length: {}\r\n\r\n{}", reply.body.len(), reply.body).unwrap();
    stream.write_all(text.as_bytes()).await.unwrap_or_default();
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let head_end = loop {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).ok()?;
    let headers: BTreeMap<String, String> = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head_end + length {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    }
    let body = String::from_utf8(bytes[head_end..].to_vec()).ok()?;
    let mut line = head.split(' ');
    let (method, path) = (line.next()?.to_owned(), line.next()?.to_owned());
    Some(Request { method, path, headers, body })
}

impl State {
    /// `None` cuts the connection.
    fn handle(&mut self, request: &Request) -> Option<Reply> {
        let path = request.path.strip_prefix("/api/data/v9.2/").unwrap_or(&request.path).to_owned();
        let line = format!("{} {path}", request.method);
        self.headers.clone_from(&request.headers);
        let is_metadata = ["WhoAmI", "EntityDefinitions", "sdkmessagefilters", "organizations"]
            .iter()
            .any(|name| path.starts_with(name));
        if !is_metadata {
            self.requests.push(line.clone());
            self.bodies.push(request.body.clone());
        }
        let fault = self.faults.iter().position(|fault| line.contains(fault.on)).map(|at| self.faults.remove(at).kind);
        match fault {
            Some(FaultKind::Reply(reply)) => Some(reply),
            Some(FaultKind::CutBefore) => None,
            Some(FaultKind::CutAfter) => {
                self.run(&request.method, &path, &request.body, &request.headers);
                None
            }
            Some(FaultKind::CutAfterAndStop(cancel)) => {
                cancel.cancel();
                self.run(&request.method, &path, &request.body, &request.headers);
                None
            }
            Some(FaultKind::Stop(cancel)) => {
                cancel.cancel();
                Some(self.run(&request.method, &path, &request.body, &request.headers))
            }
            None => {
                let reply = self.run(&request.method, &path, &request.body, &request.headers);
                Some(self.marked(reply))
            }
        }
    }

    fn marked(&self, reply: Reply) -> Reply {
        if self.marks_answers { reply.with("OData-Version", "4.0") } else { reply }
    }

    fn run(&mut self, method: &str, path: &str, body: &str, headers: &BTreeMap<String, String>) -> Reply {
        if let Some((_, reply)) = self.pages.iter().find(|(text, _)| path.contains(text.as_str())) {
            return reply.clone();
        }
        let is_get = method == "GET";
        match path {
            "WhoAmI" => Reply::json(
                200,
                &json!({"UserId": ORGANIZATION, "BusinessUnitId": ORGANIZATION, "OrganizationId": ORGANIZATION}),
            ),
            "$batch" => self.run_batch(body, headers),
            _ if path.starts_with("organizations") => Reply::json(
                200,
                &json!({"@Microsoft.Dynamics.CRM.globalmetadataversion": self.version.to_string(), "value": []}),
            ),
            _ if path.starts_with("sdkmessagefilters") => {
                let found = if self.has_bulk { json!([{"sdkmessagefilterid": "x"}]) } else { json!([]) };
                Reply::json(200, &json!({ "value": found }))
            }
            _ if path.starts_with("EntityDefinitions") => definition(path),
            _ if path.starts_with("accounts?") && is_get => self.query(path),
            _ if path.ends_with(".CreateMultiple") => self.bulk(body, Self::create),
            _ if path.ends_with(".UpdateMultiple") => self.bulk(body, Self::update),
            "accounts" => self.create(&serde_json::from_str(body).unwrap()).unwrap_or_else(|reply| reply),
            _ if path.starts_with("accounts(") => self.run_single(method, path, body),
            _ => Reply::error(404, "0x80040217", "not there"),
        }
    }

    fn run_single(&mut self, method: &str, path: &str, body: &str) -> Reply {
        let id = path.trim_start_matches("accounts(").trim_end_matches(')');
        if !self.rows.contains_key(id) {
            return Reply::error(404, "0x80040217", &format!("account With Id = {id} Does Not Exist"));
        }
        if method == "DELETE" {
            self.rows.remove(id);
            return Reply::empty(204);
        }
        let mut row: Row = serde_json::from_str(body).unwrap();
        row.insert("accountid".to_owned(), json!(id));
        self.update(&row).unwrap_or_else(|reply| reply)
    }

    /// All or nothing, as a standard table.
    fn bulk(&mut self, body: &str, apply: fn(&mut Self, &Row) -> Result<Reply, Reply>) -> Reply {
        let body: Value = serde_json::from_str(body).unwrap();
        let mut ids = Vec::new();
        let before = self.rows.clone();
        for target in body["Targets"].as_array().unwrap() {
            if let Err(reply) = apply(self, target.as_object().unwrap()) {
                self.rows = before;
                return reply;
            }
            ids.push(target["accountid"].clone());
        }
        Reply::json(200, &json!({ "Ids": ids }))
    }

    fn create(&mut self, row: &Row) -> Result<Reply, Reply> {
        let id = row["accountid"].as_str().unwrap().to_owned();
        let is_taken =
            |other: &&Row| row.contains_key("accountnumber") && other.get("accountnumber") == row.get("accountnumber");
        if self.rows.contains_key(&id) {
            return Err(Reply::error(412, "0x80040237", "Cannot insert duplicate key."));
        }
        if self.rows.values().any(|other| is_taken(&other)) {
            return Err(Reply::error(412, "0x80060892", "Entity Key violated."));
        }
        check(row)?;
        self.rows.insert(id.clone(), row.clone());
        Ok(Reply::empty(204).with("OData-EntityId", &format!("http://fake/api/data/v9.2/accounts({id})")))
    }

    fn update(&mut self, row: &Row) -> Result<Reply, Reply> {
        let id = row["accountid"].as_str().unwrap();
        check(row)?;
        let Some(held) = self.rows.get_mut(id) else {
            return Err(Reply::error(404, "0x80040217", &format!("account With Ids = {id} Do Not Exist")));
        };
        held.extend(row.clone());
        Ok(Reply::empty(204))
    }

    fn run_batch(&mut self, body: &str, headers: &BTreeMap<String, String>) -> Reply {
        let boundary = headers["content-type"].split("boundary=").nth(1).unwrap().trim_matches('"').to_owned();
        let mut text = String::new();
        for part in body.split(&format!("--{boundary}")).filter(|part| part.contains("HTTP/1.1")) {
            let request = part.split_once("\r\n\r\n").unwrap().1;
            let (head, content) = request.split_once("\r\n\r\n").unwrap();
            let mut line = head.split(' ');
            let (method, path) = (line.next().unwrap(), line.next().unwrap().trim_start_matches("/api/data/v9.2/"));
            let reply = self.run(method, path, content.trim_end(), &BTreeMap::new());
            write!(text, "--answer\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {} X\r\n", reply.status).unwrap();
            for (name, value) in &reply.headers {
                write!(text, "{name}: {value}\r\n").unwrap();
            }
            write!(text, "\r\n{}\r\n", reply.body).unwrap();
        }
        text.push_str("--answer--\r\n");
        let headers = vec![("content-type".to_owned(), "multipart/mixed; boundary=answer".to_owned())];
        Reply { status: 200, headers, body: text }
    }

    /// Rows any of whose values stands in the query; all rows without a filter.
    fn query(&self, path: &str) -> Reply {
        let is_found = |row: &&Row| {
            !path.contains("$filter")
                || row.values().filter_map(Value::as_str).any(|value| path.contains(&format!("%22{value}%22")))
        };
        let rows: Vec<&Row> = self.rows.values().filter(is_found).collect();
        Reply::json(200, &json!({ "value": rows }))
    }
}

fn check(row: &Row) -> Result<(), Reply> {
    match row.get("name").and_then(Value::as_str) {
        Some("bad") => Err(Reply::error(
            400,
            "0x80044331",
            "The length of the 'name' attribute exceeded the maximum length of '160'.",
        )),
        Some("odd") => Err(Reply::error(400, "0x80040203", "Invalid argument.")),
        Some("orphan") => Err(Reply::error(404, "0x80040217", "contact With Id = x Does Not Exist")),
        Some("busy") => Err(Reply::error(500, "0x80040216", "An unexpected error occurred.")),
        _ => Ok(()),
    }
}

fn definition(path: &str) -> Reply {
    let entity = json!({"LogicalName": "account", "EntitySetName": "accounts", "PrimaryIdAttribute": "accountid",
        "PrimaryNameAttribute": "name", "ChangeTrackingEnabled": true});
    if path.starts_with("EntityDefinitions?") {
        return Reply::json(200, &json!({"value": [entity, {"LogicalName": "contact", "EntitySetName": "contacts"}]}));
    }
    if !path.contains("LogicalName='account'") {
        return Reply::error(404, "0x80060888", "Could not find an entity with name wr_none.").with("x", "y");
    }
    let attribute = |name: &str, kind: &str| json!({"LogicalName": name, "AttributeType": kind});
    let value = if path.contains("/Attributes?") {
        json!([
            attribute("accountid", "Uniqueidentifier"),
            attribute("name", "String"),
            attribute("accountnumber", "String"),
            attribute("primarycontactid", "Lookup"),
            attribute("statecode", "State"),
            attribute("statuscode", "Status")
        ])
    } else if path.contains(".StringAttributeMetadata") {
        json!([{"LogicalName": "name", "MaxLength": 160}, {"LogicalName": "accountnumber", "MaxLength": 20}])
    } else if path.contains(".StateAttributeMetadata") {
        json!([{"LogicalName": "statecode", "OptionSet": {"Options": [{"Value": 0}, {"Value": 1}]}}])
    } else if path.contains(".StatusAttributeMetadata") {
        json!([{"LogicalName": "statuscode", "OptionSet": {"Options": [{"Value": 1, "State": 0}, {"Value": 2, "State": 1}]}}])
    } else if path.contains(".LookupAttributeMetadata") {
        json!([{"LogicalName": "primarycontactid", "Targets": ["contact"]}])
    } else if path.contains("/Keys") {
        json!([{"SchemaName": "number", "LogicalName": "number", "KeyAttributes": ["accountnumber"], "EntityKeyIndexStatus": "Active"}])
    } else if path.contains("/ManyToOneRelationships") {
        json!([{"ReferencingAttribute": "primarycontactid", "ReferencedEntity": "contact",
            "ReferencingEntityNavigationPropertyName": "primarycontactid"}])
    } else if path.contains("?$select=LogicalName,EntitySetName") {
        return Reply::json(200, &entity);
    } else {
        json!([])
    };
    Reply::json(200, &json!({ "value": value }))
}
