//! Answers known without Flowgate: `known_answers.json` of the example, made by a script of its own.

use std::collections::BTreeMap;
use std::path::Path;

use flowgate_core::{Code, LoadRows};
use serde::Deserialize;

use super::day::Day;
use super::outcome::Checks;
use crate::failure::Failure;
use crate::render::number::count;

#[derive(Debug, Deserialize)]
pub(crate) struct Known {
    /// By table.
    pub(crate) tables: BTreeMap<String, Table>,
    sources: Sources,
    asset_changes: BTreeMap<String, AssetChanges>,
    /// By day, then by table.
    days: BTreeMap<String, BTreeMap<String, Answer>>,
}

/// How a table is read and hashed.
#[derive(Debug, Deserialize)]
pub(crate) struct Table {
    /// Its name in addresses.
    pub(crate) set: String,
    /// The column that holds our key; rows without it are not ours.
    pub(crate) key: String,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Field {
    pub(crate) column: String,
    /// `text`, `integer`, `decimal N`, `date`, `instant` or `reference`.
    pub(crate) form: String,
    /// Of a reference: the table's set, its id and the key it stands for.
    pub(crate) set: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) key: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Sources {
    enquiries: u64,
    enquiries_completed: u64,
    enquiries_superseded: u64,
    cases_closed: u64,
    customers: u64,
    customers_joined_by_email: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct AssetChanges {
    prepared: u64,
    created: u64,
    updated: u64,
    unchanged: u64,
    gone: u64,
}

/// Rows and their order-free hash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(crate) struct Answer {
    pub(crate) rows: u64,
    pub(crate) hash: String,
}

impl Known {
    pub(crate) fn read(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("known_answers.json");
        serde_json::from_str(&fs_err::read_to_string(&path)?).map_err(|error| {
            Failure::new(Code::MALFORMED_FILE, format!("`known_answers.json` is not what it was: {error}"))
        })
    }

    pub(crate) fn answer(&self, day: u8, table: &str) -> Option<&Answer> {
        self.days.get(&day.to_string())?.get(table)
    }

    /// What happened to the assets on a day.
    pub(crate) fn check_assets(&self, day: u8, rows: Option<LoadRows>, checks: &mut Checks) {
        let known = self.asset_changes.get(&day.to_string()).copied();
        let found = rows.map(|rows| AssetChanges {
            prepared: rows.prepared,
            created: rows.created,
            updated: rows.updated,
            unchanged: rows.unchanged,
            gone: rows.gone,
        });
        let text = |changes: Option<AssetChanges>| match changes {
            None => "nothing".to_owned(),
            Some(AssetChanges { created, updated, unchanged, gone, .. }) => {
                let [created, updated, unchanged, gone] = [created, updated, unchanged, gone].map(count);
                format!("{created} created, {updated} updated, {unchanged} unchanged, {gone} gone")
            }
        };
        checks.add(format!("day {day}: assets"), text(known), text(found));
    }

    /// What the first day must have made of the enquiries and the customers.
    pub(crate) fn check_sources(&self, days: &[Day], checks: &mut Checks) {
        let Some(first) = days.first() else { return };
        let sources = &self.sources;
        let read = |stream| first.extracted(stream).unwrap_or_default();
        checks.add_count("enquiries read", sources.enquiries, read("enquiry"));
        let cases = first.rows("cases").unwrap_or_default();
        checks.add_count("enquiries alike in every column, superseded", sources.enquiries_superseded, cases.superseded);
        let what = format!("cases closed, of {} completed enquiries", count(sources.enquiries_completed));
        checks.add_count(&what, sources.cases_closed, first.closed);
        checks.add_count("customers read", sources.customers, read("customer"));
        let customers = first.rows("customers").unwrap_or_default();
        checks.add_count("customers joined by e-mail", sources.customers_joined_by_email, customers.created);
    }
}
