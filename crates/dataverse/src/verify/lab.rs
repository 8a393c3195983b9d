//! The place where probes work: a scratch table of its own.
//!
//! The table is made in the connection's solution under its publisher's prefix, and removed with
//! everything in it whatever happens to the probes; only a killed process leaves it behind, under a
//! name that says what it is.

use std::time::Duration;

use flowgate_core::project::{ColumnSpec, ColumnSpecKind};
use flowgate_core::{CancellationToken, Code, ConnectorError, ErrorKind};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

use super::ask::{STRONG, add_header, write};
use super::probe::NoAnswer;
use super::reply::Reply;
use crate::Dataverse;
use crate::call::CallError;
use crate::client::WhoAmI;
use crate::metadata::Consistency;
use crate::provision::{Publisher, definition};

/// What follows the prefix in the names of scratch tables.
pub(super) const SCRATCH_NAME: &str = "flowgatescratch";

/// Definitions take seconds of the service's time.
const DEFINITION_BUSY: Duration = Duration::from_secs(3);

/// How often something that takes time is looked at, and for how long at most.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const LAG_MAX: Duration = Duration::from_mins(3);
const KEY_MAX: Duration = Duration::from_mins(15);

/// Tries to remove a table: the service refuses while another change of definitions is under way.
const REMOVE_TRIES_MAX: u32 = 5;
const REMOVE_WAIT: Duration = Duration::from_secs(10);

pub(super) struct Lab<'a> {
    pub(super) dataverse: &'a Dataverse,
    pub(super) cancel: &'a CancellationToken,
    pub(super) who: WhoAmI,
    /// Whether to send what takes megabytes or thousands of rows.
    pub(super) with_large: bool,
    publisher: Publisher,
    pub(super) table: String,
    pub(super) set: String,
    pub(super) elastic: Mutex<Option<ScratchTable>>,
    pub(super) bulk_deleted: OnceCell<BulkDeleted>,
    /// How long a new column and a new key took to be usable.
    pub(super) lag_seconds: f64,
    pub(super) key_seconds: f64,
}

/// How a bulk deletion ended.
pub(super) struct BulkDeleted {
    pub(super) seconds: f64,
    pub(super) status: i64,
}

/// Another table that a probe made.
#[derive(Debug, Clone)]
pub(super) struct ScratchTable {
    pub(super) table: String,
    pub(super) set: String,
}

impl<'a> Lab<'a> {
    pub(super) fn new(
        dataverse: &'a Dataverse,
        cancel: &'a CancellationToken,
        who: WhoAmI,
        publisher: Publisher,
        with_large: bool,
    ) -> Self {
        let number = Uuid::new_v4().simple().to_string();
        let table = format!("{}_{SCRATCH_NAME}{}", publisher.prefix, number.get(..8).unwrap_or_default());
        Self {
            dataverse,
            cancel,
            who,
            with_large,
            publisher,
            table,
            set: String::new(),
            elastic: Mutex::new(None),
            bulk_deleted: OnceCell::new(),
            lag_seconds: 0.0,
            key_seconds: 0.0,
        }
    }

    /// The logical name of a scratch column.
    pub(super) fn column(&self, name: &str) -> String {
        format!("{}_{name}", self.publisher.prefix)
    }

    /// The scratch table's primary id.
    pub(super) fn id_column(&self) -> String {
        format!("{}id", self.table)
    }

    /// The first option's number of the choice column, which is its default.
    pub(super) fn first_option(&self) -> i32 {
        self.publisher.option_prefix.saturating_mul(definition::OPTIONS_PER_PREFIX)
    }

    pub(super) fn row_path(&self, id: Uuid) -> String {
        format!("{}({id})", self.set)
    }

    /// Makes the scratch table, and measures on the way what takes time.
    pub(super) async fn prepare(&mut self) -> Result<(), NoAnswer> {
        let name = self.column("name");
        let table = definition::table_body(&self.table, ["Flowgate scratch"; 2], (&name, 100), true);
        self.define("EntityDefinitions", table).await?;
        let attributes = format!("EntityDefinitions(LogicalName='{}')/Attributes", self.table);
        for spec in self.column_specs() {
            match definition::relationship(&self.table, &spec, &self.id_column()) {
                Some(body) => self.define("RelationshipDefinitions", body).await?,
                None => self.define(&attributes, self.column_body(&spec)).await?,
            };
        }
        let created = self.now();
        let late = format!("{attributes}(LogicalName='{}')?$select=LogicalName", self.column("late"));
        self.lag_seconds = self.wait_until(created, LAG_MAX, &late, Consistency::Cached, Reply::is_success).await?;
        let key = definition::key(&self.column("scratchkey"), &[self.column("key")]);
        let keys = format!("EntityDefinitions(LogicalName='{}')/Keys", self.table);
        self.define(&keys, key).await?;
        let created = self.now();
        let is_active = |reply: &Reply| reply.rows().iter().any(|key| key["EntityKeyIndexStatus"] == "Active");
        let keys = format!("{keys}?$select=SchemaName,EntityKeyIndexStatus");
        self.key_seconds = self.wait_until(created, KEY_MAX, &keys, Consistency::Strong, is_active).await?;
        self.set = self.set_of(&self.table).await?;
        Ok(())
    }

    /// The seconds from `since` until an answer is as wanted.
    async fn wait_until(
        &self,
        since: f64,
        wait_max: Duration,
        path: &str,
        consistency: Consistency,
        is_wanted: impl Fn(&Reply) -> bool,
    ) -> Result<f64, NoAnswer> {
        loop {
            let asked = self.now();
            let reply = self.look(path, consistency).await?;
            if is_wanted(&reply) {
                return Ok((asked - since).max(0.0));
            }
            if asked - since > wait_max.as_secs_f64() {
                return Err(NoAnswer::NotObservable(format!("still not there after {} s", wait_max.as_secs())));
            }
            self.sleep(LOOK_INTERVAL).await?;
        }
    }

    pub(super) async fn wait_until_visible(&self, path: &str) -> Result<f64, NoAnswer> {
        self.wait_until(self.now(), LAG_MAX, path, Consistency::Strong, Reply::is_success).await
    }

    pub(super) async fn set_of(&self, table: &str) -> Result<String, NoAnswer> {
        let path = format!("EntityDefinitions(LogicalName='{table}')?$select=EntitySetName");
        let reply = self.get(&path).await?.required("reading the scratch table's definition")?;
        Ok(reply.json["EntitySetName"].as_str().unwrap_or_default().to_owned())
    }

    /// The columns; the last one made is the one whose visibility is measured.
    fn column_specs(&self) -> Vec<ColumnSpec> {
        let kinds = [
            ("key", ColumnSpecKind::Text { length: 100 }),
            ("decimal", ColumnSpecKind::Decimal { scale: 2 }),
            ("big", ColumnSpecKind::BigInteger),
            ("money", ColumnSpecKind::Money),
            ("when", ColumnSpecKind::DateTime),
            // Their order by number is not their order by label.
            ("choice", ColumnSpecKind::Choice { labels: vec!["Zulu".to_owned(), "Alpha".to_owned()] }),
            ("parent", ColumnSpecKind::Lookup { target: self.table.clone() }),
            ("late", ColumnSpecKind::Text { length: 100 }),
        ];
        let spec = |(name, kind)| ColumnSpec { name: self.column(name), display: None, kind };
        kinds.into_iter().map(spec).collect()
    }

    fn column_body(&self, spec: &ColumnSpec) -> Value {
        let mut body = definition::column(spec, &self.publisher);
        if matches!(spec.kind, ColumnSpecKind::Choice { .. }) {
            body["DefaultFormValue"] = json!(self.first_option());
        }
        body
    }

    /// Sends a new definition into the solution; it has to be taken.
    pub(super) async fn define(&self, path: &str, body: Value) -> Result<Reply, NoAnswer> {
        self.try_define(path, &body).await?.required("making the scratch table")
    }

    pub(super) async fn try_define(&self, path: &str, body: &Value) -> Result<Reply, NoAnswer> {
        let solution = self.dataverse.solution_name().map_err(CallError::Fatal)?;
        let mut call = write(Method::POST, path, body, DEFINITION_BUSY);
        add_header(&mut call, "mscrm.solutionuniquename", solution);
        self.observe(call).await
    }

    /// Removes what was made. Runs to its end even after a cancellation.
    pub(super) async fn remove(&self) -> Result<(), ConnectorError> {
        if let Some(elastic) = self.elastic.lock().await.take() {
            self.remove_table(&elastic.table).await?;
        }
        self.remove_table(&self.table).await
    }

    async fn remove_table(&self, table: &str) -> Result<(), ConnectorError> {
        let client = &self.dataverse.client;
        let path = format!("EntityDefinitions(LogicalName='{table}')");
        let mut call = write(Method::DELETE, &path, &Value::Null, DEFINITION_BUSY).repeatable();
        add_header(&mut call, "if-match", "*");
        add_header(&mut call, STRONG.0, STRONG.1);
        let mut said = String::new();
        for attempt in 0..REMOVE_TRIES_MAX {
            if attempt > 0 {
                client.clock().sleep(REMOVE_WAIT).await;
            }
            match client.observe(&call, client.bounds()).await {
                Ok(answer) if answer.status.is_success() || answer.status == http::StatusCode::NOT_FOUND => {
                    return Ok(());
                }
                Ok(answer) => said = Reply::of(&answer).words(),
                Err(error) => said = error.into_error("removing the scratch table").to_string(),
            }
        }
        let message = format!("the scratch table `{table}` could not be removed: {said}");
        Err(ConnectorError::new(ErrorKind::Transient, Code::SERVICE_FAILED, message)
            .hint("delete the table in the environment; nothing else was made"))
    }

    pub(super) fn now(&self) -> f64 {
        self.dataverse.client.clock().elapsed().since(flowgate_core::Elapsed::default()).as_secs_f64()
    }

    pub(super) async fn sleep(&self, duration: Duration) -> Result<(), NoAnswer> {
        tokio::select! {
            () = self.dataverse.client.clock().sleep(duration) => Ok(()),
            () = self.cancel.cancelled() => Err(CallError::Cancelled.into()),
        }
    }
}
