//! What a project does with the tables of a connection, gathered from its flows.

use std::collections::BTreeMap;

use flowgate_core::examination::TableUse;
use flowgate_core::project::{Load, Missing, Stream};
use flowgate_core::{ConnectionName, Project};

/// Tables in the order of their names.
pub(super) fn of_connection(project: &Project, connection: &ConnectionName) -> Vec<TableUse> {
    let mut uses = Uses::default();
    for flow in project.flows.values() {
        for load in flow.loads.iter().filter(|load| load.into == *connection) {
            uses.add_load(load);
        }
        for stream in flow.streams.values().filter(|stream| stream.from == *connection) {
            uses.add_stream(stream);
        }
    }
    uses.tables.into_values().collect()
}

#[derive(Default)]
struct Uses {
    tables: BTreeMap<String, TableUse>,
}

impl Uses {
    fn table(&mut self, name: &str) -> &mut TableUse {
        let empty = || TableUse { table: name.to_owned(), ..TableUse::default() };
        self.tables.entry(name.to_owned()).or_insert_with(empty)
    }

    fn add_load(&mut self, load: &Load) {
        let usage = self.table(&load.table);
        // What a load matches on is read when the table is adopted.
        usage.is_read = true;
        usage.is_written = true;
        usage.is_deleted |= load.missing == Missing::Delete;
        add_key(usage, &load.match_columns);
        for rule in load.lookups.values().flat_map(|lookup| &lookup.rules) {
            let usage = self.table(&rule.table);
            usage.is_read = true;
            add_key(usage, &rule.columns);
        }
    }

    fn add_stream(&mut self, stream: &Stream) {
        let Some(table) = stream.settings["table"].as_str() else { return };
        let usage = self.table(table);
        usage.is_read = true;
        usage.is_tracked |= stream.is_incremental;
    }
}

fn add_key(usage: &mut TableUse, columns: &[String]) {
    if !columns.is_empty() && !usage.keys.iter().any(|known| known == columns) {
        usage.keys.push(columns.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_asked_for_once() {
        let mut uses = Uses::default();
        let columns = ["a".to_owned()];
        add_key(uses.table("account"), &columns);
        add_key(uses.table("account"), &columns);
        add_key(uses.table("account"), &[]);
        assert_eq!(uses.table("account").keys, [vec!["a".to_owned()]]);
    }

    #[test]
    fn a_stream_of_changes_needs_tracking() {
        let mut uses = Uses::default();
        let stream = |is_incremental| Stream {
            name: serde_json::from_value(json!("s")).unwrap(),
            from: serde_json::from_value(json!("crm")).unwrap(),
            settings: json!({"table": "contact"}),
            key: Vec::new(),
            deletes: flowgate_core::project::Deletes::Seen,
            columns: BTreeMap::new(),
            is_incremental,
            may_be_empty: false,
        };
        uses.add_stream(&stream(true));
        uses.add_stream(&stream(false));
        let contact = &uses.tables["contact"];
        assert!(contact.is_read && contact.is_tracked && !contact.is_written);
    }
}
