//! Finding the rows that lookup columns refer to.
//!
//! Before a load is prepared, the distinct values of each lookup are found once: first in the state
//! of loads that write the target table under the same columns (no request), then at the
//! destination. A value that matches two rows is refused rather than guessed. Rows that this run deletes are not found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use flowgate_core::destination::{Class, ID_COLUMN, RowFault, Selection};
use flowgate_core::project::{Lookup, LookupRule};
use flowgate_core::{Code, KeyHash, TableShape};
use flowgate_sorted::key_hashes;
use futures::StreamExt;
use uuid::Uuid;

use crate::RunError;
use crate::mapping::{Mapping, Origin};
use crate::run::Scope;
use crate::transform::Transforms;

/// Above this many unknown keys the whole table is read instead of asking key by key.
const KEYS_ASKED_MAX: usize = 2_000;

/// What is known of one natural key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    One(Uuid),
    Many,
}

/// One rule with everything it can find.
struct Finder {
    shape: Arc<TableShape>,
    columns: Vec<String>,
    found: HashMap<KeyHash, Found>,
}

/// One lookup column, ready to resolve batches.
struct Resolver {
    finders: Vec<Finder>,
    /// The reference that stands in for null and unknown values.
    otherwise: Option<String>,
    /// Unknown values are left empty for the second pass.
    is_deferred: bool,
}

/// The lookups of a load, by position of the mapped column.
pub(crate) struct Lookups {
    resolvers: HashMap<usize, Resolver>,
}

/// The canonical references of one lookup column of one batch.
pub(crate) struct Resolved {
    pub(crate) references: StringArray,
    pub(crate) faults: Vec<(usize, RowFault)>,
    /// Rows whose reference waits for the second pass.
    pub(crate) deferred: u64,
}

impl Lookups {
    /// Finds every value that the load's SELECT returns in its lookup columns.
    pub(crate) async fn find(
        scope: &Scope<'_>,
        mapping: &Mapping,
        transforms: &Transforms,
        select: &Schema,
    ) -> Result<Self, RunError> {
        let mut resolvers = HashMap::new();
        for (position, column) in mapping.columns.iter().enumerate() {
            if let Origin::Lookup { positions, lookup } = &column.origin {
                let names: Vec<String> = positions.iter().map(|at| select.field(*at).name().clone()).collect();
                let values = distinct_values(scope, transforms, &names).await?;
                let resolver = Resolver::find(scope, &column.name, lookup, &values).await?;
                resolvers.insert(position, resolver);
            }
        }
        Ok(Self { resolvers })
    }

    /// The references of the mapped column at `position`, for the values in `columns`.
    pub(crate) fn resolve(
        &self,
        scope: &Scope<'_>,
        position: usize,
        name: &str,
        columns: &[ArrayRef],
        rows: usize,
    ) -> Result<Resolved, RunError> {
        let resolver = self.resolvers.get(&position).ok_or(RunError::Defect("a lookup that was not prepared"))?;
        resolver.resolve(scope, name, columns, rows)
    }
}

async fn distinct_values(
    scope: &Scope<'_>,
    transforms: &Transforms,
    names: &[String],
) -> Result<Vec<RecordBatch>, RunError> {
    let mut values = Vec::new();
    if names.is_empty() {
        return Ok(values);
    }
    let mut rows = transforms.distinct(scope.load, names).await?;
    while let Some(batch) = rows.next().await {
        scope.require_not_cancelled()?;
        values.push(batch.map_err(|error| RunError::sql(error, &scope.load.sql))?);
    }
    Ok(values)
}

impl Resolver {
    async fn find(scope: &Scope<'_>, column: &str, lookup: &Lookup, values: &[RecordBatch]) -> Result<Self, RunError> {
        let mut finders = Vec::new();
        for rule in &lookup.rules {
            finders.push(Finder::find(scope, rule, values, lookup.otherwise.as_deref()).await?);
        }
        let mut resolver = Self { finders, otherwise: None, is_deferred: scope.is_deferred(lookup) };
        if let Some(text) = &lookup.otherwise {
            resolver.otherwise = Some(resolver.default_reference(scope, column, text)?);
        }
        Ok(resolver)
    }

    fn default_reference(&self, scope: &Scope<'_>, column: &str, text: &str) -> Result<String, RunError> {
        let value: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let mut resolved = self.resolve(scope, column, &[value], 1)?;
        if resolved.references.is_valid(0) {
            return Ok(resolved.references.value(0).to_owned());
        }
        let reason = resolved.faults.pop().map(|(_, fault)| fault.reason).unwrap_or_default();
        Err(RunError::refused(
            Code::LOOKUP_NOT_UNIQUE,
            format!("the default `{text}` of `{column}` is not one row: {reason}"),
        ))
    }

    fn resolve(&self, scope: &Scope<'_>, name: &str, columns: &[ArrayRef], rows: usize) -> Result<Resolved, RunError> {
        let mut keys = Vec::new();
        for finder in &self.finders {
            keys.push(if columns.is_empty() { vec![None; rows] } else { finder.keys(scope, columns)? });
        }
        let mut faults = Vec::new();
        let mut deferred = 0;
        let mut references = arrow_array::builder::StringBuilder::with_capacity(rows, rows * 48);
        for row in 0..rows {
            // A source that numbers its rows within a system leaves the number empty where nothing is meant.
            let is_null = columns.iter().any(|column| column.is_null(row)) || columns.is_empty();
            match self.reference(&keys, row, is_null) {
                Reference::To(text) => references.append_value(text),
                Reference::None => references.append_null(),
                Reference::Deferred => {
                    deferred += 1;
                    references.append_null();
                }
                Reference::Unknown | Reference::Ambiguous if is_null => references.append_null(),
                Reference::Unknown => {
                    faults.push((row, self.orphan(scope, name, columns, row)?));
                    references.append_null();
                }
                Reference::Ambiguous => {
                    faults.push((row, self.ambiguous(name, columns, row)?));
                    references.append_null();
                }
            }
        }
        Ok(Resolved { references: references.finish(), faults, deferred })
    }

    fn reference(&self, keys: &[Vec<Option<KeyHash>>], row: usize, is_null: bool) -> Reference {
        for (finder, keys) in self.finders.iter().zip(keys) {
            match keys[row].and_then(|key| finder.found.get(&key)) {
                Some(Found::One(id)) => return Reference::To(format!("{}/{}", finder.shape.table, id.as_hyphenated())),
                Some(Found::Many) => return Reference::Ambiguous,
                Some(Found::Nothing) | None => {}
            }
        }
        match &self.otherwise {
            Some(reference) => Reference::To(reference.clone()),
            None if is_null => Reference::None,
            None if self.is_deferred => Reference::Deferred,
            None => Reference::Unknown,
        }
    }

    fn orphan(&self, scope: &Scope<'_>, name: &str, columns: &[ArrayRef], row: usize) -> Result<RowFault, RunError> {
        let tables: Vec<_> = self.finders.iter().map(|finder| format!("`{}`", finder.shape.table)).collect();
        let mut reason = format!("no row of {} with {}", tables.join(" or "), shown(&self.finders, columns, row)?);
        if scope.pass == 2 {
            reason.push_str("; apart from this reference the row was loaded");
        }
        Ok(RowFault::new(Code::ROW_ORPHAN, Some(name), reason))
    }

    fn ambiguous(&self, name: &str, columns: &[ArrayRef], row: usize) -> Result<RowFault, RunError> {
        let reason = format!("more than one row with {}", shown(&self.finders, columns, row)?);
        Ok(RowFault::new(Code::ROW_AMBIGUOUS_LOOKUP, Some(name), reason))
    }
}

enum Reference {
    To(String),
    None,
    Deferred,
    Unknown,
    Ambiguous,
}

/// `accountnumber` `C-17`, as a person reads it.
fn shown(finders: &[Finder], columns: &[ArrayRef], row: usize) -> Result<String, RunError> {
    let names = finders.first().map(|finder| finder.columns.as_slice()).unwrap_or_default();
    let mut parts = Vec::new();
    for (name, column) in names.iter().zip(columns) {
        parts.push(format!("`{name}` = `{}`", arrow_cast::display::array_value_to_string(column, row)?));
    }
    Ok(parts.join(", "))
}

impl Finder {
    async fn find(
        scope: &Scope<'_>,
        rule: &LookupRule,
        values: &[RecordBatch],
        otherwise: Option<&str>,
    ) -> Result<Self, RunError> {
        let shape = scope.destination.describe(&rule.table).await?;
        let columns = if rule.columns.is_empty() { vec![shape.primary_id.clone()] } else { rule.columns.clone() };
        if let Some(unknown) = columns.iter().find(|column| shape.column(column).is_none()) {
            return Err(RunError::refused(
                Code::COLUMN_NOT_FOUND,
                format!("`lookups:` names `{}.{unknown}`, which is not there", shape.table),
            ));
        }
        let mut finder = Self { shape, columns, found: HashMap::new() };
        let mut wanted = Vec::new();
        for batch in values {
            wanted.push(finder.want(scope, batch.columns())?);
        }
        if let Some(text) = otherwise {
            let value: ArrayRef = Arc::new(StringArray::from(vec![text]));
            wanted.push(finder.want(scope, &[value])?);
        }
        if !wanted.is_empty() {
            let (shape, columns) = (Arc::clone(&finder.shape), finder.columns.clone());
            scope.ids_in_state(&shape.table, &columns, &mut |key, id| finder.note(key, id))?;
            finder.ask(scope, &wanted).await?;
        }
        Ok(finder)
    }

    /// The canonical keys of natural values; a value that cannot be a key is `None`.
    fn keys(&self, scope: &Scope<'_>, columns: &[ArrayRef]) -> Result<Vec<Option<KeyHash>>, RunError> {
        Ok(key_hashes(&self.canonical(scope, columns)?)?)
    }

    fn canonical(&self, scope: &Scope<'_>, columns: &[ArrayRef]) -> Result<RecordBatch, RunError> {
        let fields: Vec<_> = self
            .columns
            .iter()
            .zip(columns)
            .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.to_vec())?;
        Ok(scope.destination.canonical(&self.shape, &batch, &scope.wall_clock()?)?.rows)
    }

    /// Remembers that these values are to be found; returns their canonical form.
    fn want(&mut self, scope: &Scope<'_>, columns: &[ArrayRef]) -> Result<RecordBatch, RunError> {
        let rows = self.canonical(scope, columns)?;
        for key in key_hashes(&rows)?.into_iter().flatten() {
            self.found.entry(key).or_insert(Found::Nothing);
        }
        Ok(rows)
    }

    fn note(&mut self, key: KeyHash, id: Uuid) {
        if let Some(found) = self.found.get_mut(&key) {
            *found = match *found {
                Found::Nothing => Found::One(id),
                Found::One(known) if known == id => Found::One(id),
                Found::One(_) | Found::Many => Found::Many,
            };
        }
    }

    /// Asks the destination for the values that no state knows.
    async fn ask(&mut self, scope: &Scope<'_>, wanted: &[RecordBatch]) -> Result<(), RunError> {
        let mut unknown = Vec::new();
        for batch in wanted {
            let mask: BooleanArray = key_hashes(batch)?
                .iter()
                .map(|key| Some(key.is_some_and(|key| self.found.get(&key) == Some(&Found::Nothing))))
                .collect();
            unknown.push(filter_record_batch(batch, &mask)?);
        }
        let Some(first) = unknown.first() else { return Ok(()) };
        let unknown = concat_batches(&first.schema(), &unknown)?;
        if unknown.num_rows() == 0 {
            return Ok(());
        }
        let selection = self.selection(unknown);
        let mut pages = scope
            .destination
            .read_current(Arc::clone(&self.shape), self.columns.clone(), selection, Class::Batch)
            .await?;
        while let Some(page) = pages.next().await {
            scope.require_not_cancelled()?;
            self.note_page(&page?, &scope.leaving)?;
        }
        Ok(())
    }

    fn selection(&self, unknown: RecordBatch) -> Selection {
        if unknown.num_rows() > KEYS_ASKED_MAX {
            return Selection::All;
        }
        let is_id = matches!(self.columns.as_slice(), [one] if *one == self.shape.primary_id);
        match unknown.column(0).as_any().downcast_ref::<StringArray>() {
            Some(ids) if is_id => {
                Selection::Ids(ids.iter().flatten().filter_map(|text| Uuid::parse_str(text).ok()).collect())
            }
            _ => Selection::Keys(unknown),
        }
    }

    fn note_page(&mut self, page: &RecordBatch, leaving: &HashSet<Uuid>) -> Result<(), RunError> {
        let ids = row_ids(page)?;
        let positions: Vec<usize> =
            (0..page.num_columns()).filter(|at| page.schema().field(*at).name() != ID_COLUMN).collect();
        let keys = key_hashes(&page.project(&positions)?)?;
        for (key, id) in keys.into_iter().zip(ids) {
            if let Some(key) = key.filter(|_| !leaving.contains(&id)) {
                self.note(key, id);
            }
        }
        Ok(())
    }
}

/// The ids of rows that a destination returned.
pub(crate) fn row_ids(page: &RecordBatch) -> Result<Vec<Uuid>, RunError> {
    let ids = page
        .column_by_name(ID_COLUMN)
        .filter(|column| column.data_type() == &DataType::Utf8)
        .and_then(|column| column.as_any().downcast_ref::<StringArray>())
        .ok_or(RunError::Defect("a page of current rows without ids"))?;
    ids.iter()
        .map(|id| id.and_then(|text| Uuid::parse_str(text).ok()).ok_or(RunError::Defect("a current row without an id")))
        .collect()
}
