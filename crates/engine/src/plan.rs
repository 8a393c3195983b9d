//! What a run would do, without doing it.
//!
//! A plan reads the sources and the destination like a run, and keeps nothing: the store it works
//! on forgets every write, images and buckets go to a directory that is removed. Rows that a load
//! would create can be referred to by the loads after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use flowgate_core::destination::{ColumnSet, Estimate};
use flowgate_core::project::{Load, Missing};
use flowgate_core::{CancellationToken, FlowName, KeyHash, LoadName, StreamName, StreamRows};
use uuid::Uuid;

use crate::compare::Compared;
use crate::diff::{Action, Decided, Diff, asked_status};
use crate::forgetful::ForgetfulStore;
use crate::letters::{Letters, key_text};
use crate::mapping::Mapping;
use crate::run::{Engine, FlowRun, Scope, remove_dir};
use crate::{DiffCounts, GuardStop, RunError, RunOptions};

/// Changes of each load that a plan shows.
const SAMPLES_MAX: usize = 5;

/// What a run of one flow would do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub flow: FlowName,
    pub streams: Vec<(StreamName, StreamRows)>,
    pub loads: Vec<LoadPlan>,
}

/// What it would do to one table.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    pub load: LoadName,
    pub table: String,
    pub counts: DiffCounts,
    /// What the counts say about rows with one key, in words, with an example each.
    pub warnings: Vec<String>,
    pub estimate: Estimate,
    /// The guard that would stop the load before it sends anything.
    pub guard: Option<GuardStop>,
    /// Rows of the table that would become state before the first write.
    pub adopted: Option<u64>,
    /// Some of the changes, for a person.
    pub samples: Vec<PlannedChange>,
}

/// One change as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChange {
    /// `create`, `update`, `delete`, `deactivate`, `keep`.
    pub operation: &'static str,
    pub key: String,
    pub columns: Vec<ValueChange>,
}

/// One column's value now, and as it would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueChange {
    pub column: String,
    pub now: Option<String>,
    pub then: Option<String>,
}

/// What the loads of a plan would do, and the keys that each would create.
#[derive(Debug, Clone, Default)]
pub(crate) struct Planned {
    creates: BTreeMap<LoadName, Vec<KeyHash>>,
    pub(crate) loads: Vec<LoadPlan>,
}

impl Planned {
    /// The keys that `load` would create, each with an id that stands for "to come".
    pub(crate) fn ids_of(&self, load: &LoadName) -> impl Iterator<Item = (KeyHash, Uuid)> + '_ {
        self.creates.get(load).into_iter().flatten().map(|key| (*key, Uuid::from_u128(key.0)))
    }
}

impl Engine {
    /// Says what a run of the flow would do now. Sends no write.
    pub async fn plan(&self, flow: &FlowName, cancel: &CancellationToken) -> Result<Plan, RunError> {
        let planner = Self {
            project: Arc::clone(&self.project),
            store: Arc::new(ForgetfulStore::over(Arc::clone(&self.store))),
            connections: Arc::clone(&self.connections),
            clock: Arc::clone(&self.clock),
            observer: Arc::clone(&self.observer),
        };
        planner.plan_flow(flow, cancel).await
    }

    async fn plan_flow(&self, flow: &FlowName, cancel: &CancellationToken) -> Result<Plan, RunError> {
        let flow = self.flow(flow)?;
        let lease = self.store.lease_flow(&flow.name, self.clock.now())?;
        let record = self.begin(flow, &lease)?;
        let mut run = FlowRun::new(self, flow, &lease, record, RunOptions::default(), cancel.clone());
        run.is_plan = true;
        let result = run.work().await;
        remove_dir(&run.run_dir())?;
        result?;
        let streams = run.record.streams.iter().map(|(name, progress)| (name.clone(), progress.rows)).collect();
        Ok(Plan { flow: flow.name.clone(), streams, loads: run.planned.loads.clone() })
    }
}

impl FlowRun<'_> {
    /// Writes down what the load would do, for the plan and for the loads after it.
    pub(crate) fn plan_load(
        &self,
        scope: &Scope<'_>,
        compared: &Compared,
        letters: &Letters<'_>,
    ) -> Result<(LoadPlan, Vec<KeyHash>), RunError> {
        let mut samples = Vec::new();
        let mut creates = Vec::new();
        for buckets in compared.groups() {
            let diff = self.diff(scope.load, compared, letters, buckets)?;
            let is_create = |row: &&Decided| matches!(row.action, Action::Create { .. });
            creates.extend(diff.decided.iter().filter(is_create).map(|row| diff.new.keys[row.at]));
            add_samples(&mut samples, scope.load, compared, &diff)?;
        }
        let plan = LoadPlan {
            load: scope.load.name.clone(),
            table: scope.load.table.clone(),
            counts: compared.counts,
            warnings: compared.examples.warnings(&compared.counts),
            estimate: scope.destination.estimate(&compared.prepared.mapping.shape, compared.counts.changes()),
            guard: self.guards.get(&scope.load.name).cloned(),
            adopted: compared.adopted,
            samples,
        };
        Ok((plan, creates))
    }

    pub(crate) fn keep_plan(&mut self, load: &Load, plan: LoadPlan, creates: Vec<KeyHash>) {
        let planned = Arc::make_mut(&mut self.planned);
        planned.creates.insert(load.name.clone(), creates);
        planned.loads.retain(|known| known.load != load.name);
        planned.loads.push(plan);
    }
}

fn add_samples(
    samples: &mut Vec<PlannedChange>,
    load: &Load,
    compared: &Compared,
    diff: &Diff,
) -> Result<(), RunError> {
    let mapping = &compared.prepared.mapping;
    for row in &diff.decided {
        if samples.len() >= SAMPLES_MAX {
            return Ok(());
        }
        let operation = match &row.action {
            Action::Create { .. } => "create",
            Action::Update { .. } => "update",
            _ => continue,
        };
        let key = key_text(&diff.new.rows, &mapping.match_positions, row.at)?;
        let mut columns = changed_values(mapping.columns.len(), diff, row)?;
        columns.extend(changed_status(mapping, diff, row));
        samples.push(PlannedChange { operation, key, columns });
    }
    let operation = match load.missing {
        Missing::Keep => "keep",
        Missing::Deactivate => "deactivate",
        Missing::Delete => "delete",
    };
    for gone in diff.gone.iter().take(SAMPLES_MAX.saturating_sub(samples.len())) {
        let values = diff.old.values_of(&mapping.schema, &[gone.at])?;
        let key = key_text(&values, &mapping.match_positions, 0)?;
        samples.push(PlannedChange { operation, key, columns: Vec::new() });
    }
    Ok(())
}

/// The status that a row is brought into, by its label.
fn changed_status(mapping: &Mapping, diff: &Diff, row: &Decided) -> Option<ValueChange> {
    if row.status.is_left() {
        return None;
    }
    let label = |code: i32| {
        let status = mapping.shape.statuses.iter().find(|status| status.status == code);
        status.map_or_else(|| code.to_string(), |status| status.label.clone())
    };
    let before = diff.old_values.as_ref().zip(row.old);
    let now = before.and_then(|(values, at)| asked_status(mapping, values, at)).map(label);
    Some(ValueChange { column: "status".to_owned(), now, then: row.status.code().map(label) })
}

fn changed_values(columns: usize, diff: &Diff, row: &Decided) -> Result<Vec<ValueChange>, RunError> {
    let all: ColumnSet = (0..columns).collect();
    let wanted = match &row.action {
        Action::Update { columns, .. } => columns,
        _ => &all,
    };
    let mut values = Vec::new();
    for column in wanted.iter().filter(|column| *column < columns) {
        let now = match (&diff.old_values, row.old) {
            (Some(old), Some(at)) => shown(old, column, at)?,
            _ => None,
        };
        let then = shown(&diff.new.rows, column, row.at)?;
        if now != then {
            values.push(ValueChange { column: diff.new.rows.schema().field(column).name().clone(), now, then });
        }
    }
    Ok(values)
}

fn shown(rows: &RecordBatch, column: usize, row: usize) -> Result<Option<String>, RunError> {
    let values = rows.column(column);
    if values.is_null(row) {
        return Ok(None);
    }
    Ok(Some(arrow_cast::display::array_value_to_string(values, row)?))
}
