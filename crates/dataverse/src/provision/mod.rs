//! Missing tables, columns and alternate keys: planned, shown, created, waited for.
//!
//! Only what is missing is created, inside the named solution and under its publisher's prefix;
//! nothing is ever changed or removed. Running it again continues where it stopped.

pub(crate) mod definition;
mod plan;

use std::time::Duration;

use flowgate_core::destination::{Class, ProvisionStep};
use flowgate_core::project::TableSpec;
use flowgate_core::{Code, ConnectorError, ErrorKind};
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::Value;

use crate::Dataverse;
use crate::budget::Cost;
use crate::call::Call;
use crate::metadata::read_json;
use crate::metadata::wire::{Collection, KeyWire};
use plan::{Action, Planned};

/// Waits until a created part can be seen. The service's caches are up to 30 s old.
const VISIBLE_WAITS_SECONDS: [u64; 8] = [0, 1, 2, 5, 10, 20, 20, 20];

/// How often a building key is looked at, and for how long: its index covers every row there is.
const KEY_POLL: Duration = Duration::from_secs(5);
const KEY_WAIT: Duration = Duration::from_mins(30);

/// Metadata changes take seconds.
const CHANGE_BUSY: Duration = Duration::from_secs(3);

/// Who publishes the parts that are created.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Publisher {
    #[serde(rename = "customizationprefix")]
    pub(crate) prefix: String,
    #[serde(rename = "customizationoptionvalueprefix")]
    pub(crate) option_prefix: i32,
}

#[derive(Deserialize)]
struct SolutionWire {
    #[serde(rename = "ismanaged")]
    is_managed: Option<bool>,
    publisherid: Option<Publisher>,
}

impl Dataverse {
    pub(crate) async fn plan_missing(&self, tables: &[TableSpec]) -> Result<Vec<Planned>, ConnectorError> {
        let planned = plan::plan(self, tables).await?;
        if !planned.is_empty() {
            let publisher = self.publisher().await?;
            plan::check_prefixes(&planned, &publisher)?;
        }
        Ok(planned)
    }

    pub(crate) async fn create_missing(
        &self,
        tables: &[TableSpec],
        progress: &(dyn for<'a> Fn(&'a ProvisionStep) + Send + Sync),
    ) -> Result<(), ConnectorError> {
        let planned = self.plan_missing(tables).await?;
        if !planned.is_empty() {
            let publisher = self.publisher().await?;
            for planned in &planned {
                self.create(&planned.action, &publisher).await?;
                self.wait_until_visible(&planned.action).await?;
                if let Action::Key { table, name, .. } = &planned.action {
                    self.wait_until_active(table, name).await?;
                }
                progress(&planned.step);
            }
        }
        self.wait_for_keys_of(tables).await
    }

    /// The solution's publisher; its prefix begins every name that is created.
    pub(crate) async fn publisher(&self) -> Result<Publisher, ConnectorError> {
        let solution = self.solution_name()?;
        let path = format!(
            "solutions?$select=uniquename,ismanaged&$filter=uniquename%20eq%20%27{solution}%27\
             &$expand=publisherid($select=customizationprefix,customizationoptionvalueprefix)"
        );
        let call = Call::get(path, Class::Interactive);
        let found: Collection<SolutionWire> = read_json(&self.client, call, "reading the solution").await?;
        let fault = |message: String| ConnectorError::new(ErrorKind::NotFound, Code::PROVISION_REFUSED, message);
        let Some(found) = found.value.into_iter().next() else {
            return Err(fault(format!("the environment has no solution `{solution}`"))
                .hint("create an unmanaged solution there, or name an existing one in `solution:` of the connection"));
        };
        if found.is_managed == Some(true) {
            return Err(fault(format!("solution `{solution}` is managed, and takes no new parts"))
                .hint("name an unmanaged solution in `solution:` of the connection"));
        }
        found.publisherid.ok_or_else(|| fault(format!("solution `{solution}` has no publisher")))
    }

    pub(crate) fn solution_name(&self) -> Result<&str, ConnectorError> {
        let Some(solution) = &self.solution else {
            let message = "no solution is named to put new tables, columns and keys into";
            return Err(ConnectorError::new(ErrorKind::Configuration, Code::PROVISION_REFUSED, message)
                .hint("add `solution:` to the connection; it is the name of an unmanaged solution"));
        };
        let is_plain = |character: char| character.is_ascii_alphanumeric() || character == '_';
        if solution.is_empty() || !solution.chars().all(is_plain) {
            let message = format!("`{solution}` is not the unique name of a solution");
            return Err(ConnectorError::new(ErrorKind::Configuration, Code::WRONG_TYPE, message)
                .hint("unique names have letters, digits and `_` only"));
        }
        Ok(solution)
    }

    async fn create(&self, action: &Action, publisher: &Publisher) -> Result<(), ConnectorError> {
        match action {
            Action::Table { spec } => {
                let body = definition::table(spec)?;
                self.post("EntityDefinitions", &body, &format!("creating table `{}`", spec.table)).await
            }
            Action::Column { table, column } => {
                let what = format!("creating column `{table}.{}`", column.name);
                if let Some(body) = definition::relationship(table, column, &self.target_id(column).await?) {
                    return self.post("RelationshipDefinitions", &body, &what).await;
                }
                let path = format!("EntityDefinitions(LogicalName='{table}')/Attributes");
                self.post(&path, &definition::column(column, publisher), &what).await
            }
            Action::Key { table, name, columns } => {
                let path = format!("EntityDefinitions(LogicalName='{table}')/Keys");
                self.post(&path, &definition::key(name, columns), &format!("creating key `{name}` of `{table}`")).await
            }
        }
    }

    /// The primary id of a lookup's target; empty for other columns.
    async fn target_id(&self, column: &flowgate_core::project::ColumnSpec) -> Result<String, ConnectorError> {
        match &column.kind {
            flowgate_core::project::ColumnSpecKind::Lookup { target } => {
                Ok(self.metadata.table_now(&self.client, target).await?.shape.primary_id.clone())
            }
            _ => Ok(String::new()),
        }
    }

    async fn post(&self, path: &str, body: &Value, what: &str) -> Result<(), ConnectorError> {
        let cost = Cost { busy: CHANGE_BUSY, entitlement: 1 };
        // Past the caches: a part may belong to a table that was made a moment ago.
        let mut call = Call::write(Method::POST, path, body.to_string().into(), Class::Interactive, cost)
            .header(HeaderName::from_static("consistency"), HeaderValue::from_static("Strong"));
        if let Ok(solution) = HeaderValue::from_str(self.solution_name()?) {
            call = call.header(HeaderName::from_static("mscrm.solutionuniquename"), solution);
        }
        let sent = self.client.call(&call, self.client.bounds()).await;
        sent.map(|_| ()).map_err(|error| {
            error.into_error(what).hint("run `flowgate provision` again: it continues with what is missing")
        })
    }

    async fn wait_until_visible(&self, action: &Action) -> Result<(), ConnectorError> {
        for seconds in VISIBLE_WAITS_SECONDS {
            self.client.clock().sleep(Duration::from_secs(seconds)).await;
            match self.metadata.table_now(&self.client, action.table()).await {
                Ok(facts) if action.is_done(&facts.shape) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.code == Code::TABLE_NOT_FOUND => {}
                Err(error) => return Err(error),
            }
        }
        let message = format!("{} was created, and still cannot be seen", action.words());
        Err(ConnectorError::new(ErrorKind::Transient, Code::SERVICE_FAILED, message)
            .hint("run `flowgate provision` again in a minute"))
    }

    /// Keys that were there before may still be building.
    async fn wait_for_keys_of(&self, tables: &[TableSpec]) -> Result<(), ConnectorError> {
        for spec in tables.iter().filter(|spec| !spec.keys.is_empty()) {
            let shape = self.metadata.table_now(&self.client, &spec.table).await?.shape.clone();
            for columns in spec.keys.values() {
                let building = shape.keys.iter().find(|key| !key.active && plan::same_columns(&key.columns, columns));
                if let Some(key) = building {
                    self.wait_until_active(&spec.table, &key.name).await?;
                }
            }
        }
        Ok(())
    }

    async fn wait_until_active(&self, table: &str, key: &str) -> Result<(), ConnectorError> {
        let started = self.client.clock().elapsed();
        let path = format!(
            "EntityDefinitions(LogicalName='{table}')/Keys?$select=SchemaName,LogicalName,KeyAttributes,EntityKeyIndexStatus"
        );
        loop {
            let call = Call::get(path.clone(), Class::Interactive)
                .header(HeaderName::from_static("consistency"), HeaderValue::from_static("Strong"));
            let keys: Collection<KeyWire> = read_json(&self.client, call, "reading the state of a key").await?;
            let found = keys.value.iter().find(|found| {
                found.logical_name.as_deref() == Some(key) || found.schema_name.eq_ignore_ascii_case(key)
            });
            match found.and_then(|found| found.entity_key_index_status.as_deref()) {
                Some("Active") => return Ok(()),
                Some("Failed") => return Err(failed_key(table, key)),
                _ if self.client.clock().elapsed().since(started) > KEY_WAIT => return Err(slow_key(table, key)),
                _ => self.client.clock().sleep(KEY_POLL).await,
            }
        }
    }
}

fn failed_key(table: &str, key: &str) -> ConnectorError {
    let message = format!("the index of key `{key}` on `{table}` could not be built");
    ConnectorError::new(ErrorKind::Conflict, Code::KEY_NOT_ACTIVE, message)
        .hint("two rows there have the same values: remove one, then reactivate or delete the key in the environment")
}

fn slow_key(table: &str, key: &str) -> ConnectorError {
    let message = format!("the index of key `{key}` on `{table}` is still being built");
    ConnectorError::new(ErrorKind::Transient, Code::KEY_NOT_ACTIVE, message)
        .hint("large tables take long: run `flowgate provision` again to wait on")
}
