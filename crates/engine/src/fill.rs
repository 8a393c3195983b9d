//! Columns that are only filled (`master: fill_if_empty`): what the destination holds now decides, and not
//! what it held when the row was last written. It is read just before the row is sent.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::Array;
use flowgate_core::Destination;
use flowgate_core::destination::{Class, Selection, WriteUnit};
use futures::StreamExt;
use uuid::Uuid;

use crate::RunError;
use crate::lookup::row_ids;

/// Takes the columns `filling`, by their positions in the unit, out of each row that has a value there by now.
pub(crate) async fn leave_filled(
    destination: &dyn Destination,
    mut unit: WriteUnit,
    filling: &[usize],
) -> Result<WriteUnit, RunError> {
    let Some(sets) = &mut unit.columns else { return Ok(unit) };
    let concerned = unit.ids.iter().zip(sets.iter()).filter(|(_, set)| filling.iter().any(|at| set.contains(*at)));
    let ids: Vec<Uuid> = concerned.map(|(id, _)| *id).collect();
    if ids.is_empty() {
        return Ok(unit);
    }
    let names = filling.iter().map(|at| unit.rows.schema().field(*at).name().clone()).collect();
    let mut pages = destination.read_current(Arc::clone(&unit.shape), names, Selection::Ids(ids), Class::Batch).await?;
    let mut filled = HashSet::new();
    while let Some(page) = pages.next().await {
        let page = page?;
        for (row, id) in row_ids(&page)?.into_iter().enumerate() {
            // The id stands first.
            let there = filling.iter().zip(&page.columns()[1..]).filter(|(_, values)| values.is_valid(row));
            filled.extend(there.map(|(at, _)| (id, *at)));
        }
    }
    for (id, set) in unit.ids.iter().zip(sets) {
        *set = set.iter().filter(|at| !filled.contains(&(*id, *at))).collect();
    }
    Ok(unit)
}
