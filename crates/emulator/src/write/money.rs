//! Currency of rows with money: the currency lookup, the rate, and the base amounts.
//!
//! Promise: a row with any amount has a currency and a rate, and every amount its twin in the
//! base currency, `amount / rate` at four places. A changed rate of a currency rewrites no row.
//! Left out: precision per currency.

use super::Session;
use super::convert::{decimal_scale, round_to};
use crate::error::{ApiError, Code};
use crate::schema::{ColumnKind, Ordinal, Schema, Table};
use crate::storage::{Database, Row, Value, ValueRef};

type Cell = (Ordinal, Option<Value>);

/// Amounts in the base currency keep this many places.
const BASE_PLACES: u8 = 4;

/// Adds what the amounts in `cells` require. `before` is the row an update changes.
pub(super) fn complete(
    session: &Session<'_>,
    database: &Database,
    schema: &Schema,
    table: &Table,
    cells: &mut Vec<Cell>,
    before: Option<&Row>,
) -> Result<(), ApiError> {
    let (Some(currency), Some(rate)) = (table.known.currency, table.known.exchange_rate) else {
        return Ok(());
    };
    let touched = cells
        .iter()
        .any(|(ordinal, _)| *ordinal == currency || matches!(table.column(*ordinal).kind, ColumnKind::Money { .. }));
    if !touched {
        return Ok(());
    }
    let amounts: Vec<(Ordinal, Option<i128>)> = base_columns(table)
        .map(|(money, base)| (base, current(cells, before, money).and_then(|value| as_decimal(&value))))
        .collect();
    let has_amount = amounts.iter().any(|(_, amount)| amount.is_some());
    let currency_id = match current(cells, before, currency) {
        Some(Value::Lookup(_, id)) => id,
        _ if !has_amount => return Ok(()),
        _ if !session.settings.default_currency
            || cells.iter().any(|(ordinal, value)| *ordinal == currency && value.is_none()) =>
        {
            return Err(ApiError::new(
                Code::CurrencyCannotBeNull,
                "The currency cannot be null when money columns are not.",
            ));
        }
        _ => session.base_currency,
    };
    let scaled_rate = exchange_rate(database, schema, currency_id)?;
    let currency_table = schema.by_logical("transactioncurrency").map_or(0, |table| table.id);
    set(cells, currency, Some(Value::Lookup(currency_table, currency_id)));
    set(cells, rate, Some(Value::Decimal(scaled_rate)));
    for (base, amount) in amounts {
        let value =
            amount.and_then(|amount| amount.checked_mul(decimal_scale())).map(|scaled| scaled / scaled_rate.max(1));
        set(cells, base, value.map(|value| Value::Decimal(round_to(value, BASE_PLACES))));
    }
    Ok(())
}

fn base_columns(table: &Table) -> impl Iterator<Item = (Ordinal, Ordinal)> {
    table.live_columns().filter_map(|column| match column.kind {
        ColumnKind::Money { base: Some(base), .. } => Some((column.ordinal, base)),
        _ => None,
    })
}

fn current(cells: &[Cell], before: Option<&Row>, ordinal: Ordinal) -> Option<Value> {
    match cells.iter().find(|(found, _)| *found == ordinal) {
        Some((_, value)) => value.clone(),
        None => before.and_then(|row| row.get(ordinal)).map(|value| value.to_value()),
    }
}

fn as_decimal(value: &Value) -> Option<i128> {
    match value {
        Value::Decimal(amount) => Some(*amount),
        _ => None,
    }
}

fn set(cells: &mut Vec<Cell>, ordinal: Ordinal, value: Option<Value>) {
    match cells.iter_mut().find(|(found, _)| *found == ordinal) {
        Some(cell) => cell.1 = value,
        None => cells.push((ordinal, value)),
    }
}

fn exchange_rate(database: &Database, schema: &Schema, currency: uuid::Uuid) -> Result<i128, ApiError> {
    let missing = || ApiError::new(Code::LookupNotFound, format!("The currency {currency} does not exist."));
    let table = schema.by_logical("transactioncurrency").ok_or_else(missing)?;
    let row = database.get(table.id, &currency).ok_or_else(missing)?;
    let rate = table.ordinal("exchangerate").and_then(|ordinal| row.get(ordinal));
    match rate {
        Some(ValueRef::Decimal(rate)) if rate > 0 => Ok(rate),
        _ => Ok(decimal_scale()),
    }
}
