//! The tables that flows use: privileges, alternate keys, change tracking.

use std::collections::BTreeMap;

use flowgate_core::destination::Class;
use flowgate_core::examination::{Finding, FindingState, TableUse};
use flowgate_core::shape::TableShape;
use flowgate_core::{Code, ConnectorError};
use serde::Deserialize;

use crate::Dataverse;
use crate::call::{Call, CallError};
use crate::metadata::parse;

/// The depth that reads of changes need (dossier section 18.1).
const WHOLE_ORGANIZATION: &str = "Global";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HeldAnswer {
    role_privileges: Vec<HeldPrivilege>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HeldPrivilege {
    #[serde(default)]
    privilege_name: Option<String>,
    #[serde(default)]
    depth: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TablePrivileges {
    privileges: Vec<TablePrivilege>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TablePrivilege {
    privilege_type: String,
    name: String,
}

/// Privileges of our user: name in lower case, and how far each reaches.
type Held = BTreeMap<String, String>;

pub(super) async fn examine(dataverse: &Dataverse, uses: &[TableUse]) -> Result<Vec<Finding>, ConnectorError> {
    let mut findings = Vec::new();
    if uses.is_empty() {
        return Ok(findings);
    }
    let held = held_privileges(dataverse).await?;
    for usage in uses {
        let facts = match dataverse.metadata.table_now(&dataverse.client, &usage.table).await {
            Ok(facts) => facts,
            Err(error) if error.code == Code::TABLE_NOT_FOUND => {
                let absent = Finding::new(FindingState::Bad, usage.table.clone(), "the environment has no such table");
                findings.push(absent.hint("`flowgate provision` creates it, if a file of `tables/` describes it"));
                continue;
            }
            Err(error) => return Err(error),
        };
        findings.push(privileges(dataverse, usage, held.as_ref()).await?);
        findings.extend(usage.keys.iter().filter_map(|columns| key(usage, columns, &facts.shape)));
        findings.extend(usage.is_tracked.then(|| tracking(usage, facts.is_change_tracked)));
    }
    Ok(findings)
}

/// `None` if the service does not tell.
async fn held_privileges(dataverse: &Dataverse) -> Result<Option<Held>, ConnectorError> {
    let client = &dataverse.client;
    let what = "reading the privileges of the application user";
    let who = client.session(client.bounds()).await.map_err(|error| error.into_error(what))?;
    let path = format!("systemusers({})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()", who.user_id);
    let Some(answer) = read::<HeldAnswer>(dataverse, path, what).await? else { return Ok(None) };
    let named = answer.role_privileges.into_iter().filter_map(|held| {
        let name = held.privilege_name?.to_lowercase();
        Some((name, held.depth.unwrap_or_default()))
    });
    let held: Held = named.collect();
    // Older services tell ids only.
    Ok(Some(held).filter(|held| !held.is_empty()))
}

/// `None` if the request was refused.
async fn read<T: serde::de::DeserializeOwned>(
    dataverse: &Dataverse,
    path: String,
    what: &str,
) -> Result<Option<T>, ConnectorError> {
    let client = &dataverse.client;
    match client.call(&Call::get(path, Class::Interactive), client.bounds()).await {
        Ok(answer) => parse(&answer.body, what).map(Some),
        Err(CallError::Refused(_)) => Ok(None),
        Err(error) => Err(error.into_error(what)),
    }
}

async fn privileges(dataverse: &Dataverse, usage: &TableUse, held: Option<&Held>) -> Result<Finding, ConnectorError> {
    let what = format!("{}: privileges", usage.table);
    let unknown = |seen: &str| Finding::new(FindingState::Unknown, what.clone(), seen);
    let Some(held) = held else { return Ok(unknown("the service does not tell what the user holds")) };
    let path = format!("EntityDefinitions(LogicalName='{}')?$select=Privileges", usage.table);
    let Some(table) = read::<TablePrivileges>(dataverse, path, "reading the privileges of a table").await? else {
        return Ok(unknown("the service does not tell what the table needs"));
    };
    let wanted = [
        ("Read", usage.is_read || usage.is_written),
        ("Create", usage.is_written),
        ("Write", usage.is_written),
        ("Delete", usage.is_deleted),
    ];
    let (mut allowed, mut missing) = (Vec::new(), Vec::new());
    for (kind, _) in wanted.iter().filter(|(_, is_wanted)| *is_wanted) {
        let Some(privilege) = table.privileges.iter().find(|privilege| privilege.privilege_type == *kind) else {
            continue;
        };
        match held.get(&privilege.name.to_lowercase()) {
            None => missing.push(format!("`{}`", privilege.name)),
            Some(depth) if *kind == "Read" && usage.is_tracked && depth != WHOLE_ORGANIZATION => {
                missing.push(format!("`{}` for the whole organisation", privilege.name));
            }
            Some(_) => allowed.push(kind.to_lowercase()),
        }
    }
    if missing.is_empty() {
        return Ok(Finding::good(what, allowed.join(", ")));
    }
    Ok(Finding::new(FindingState::Bad, what, format!("missing {}", missing.join(", ")))
        .hint("add them to a security role of the application user"))
}

/// `None` for the primary id, which needs no alternate key.
fn key(usage: &TableUse, columns: &[String], shape: &TableShape) -> Option<Finding> {
    if matches!(columns, [only] if *only == shape.primary_id) {
        return None;
    }
    let what = format!("{}: key {}", usage.table, columns.join(", "));
    let is_same = |other: &[String]| other.len() == columns.len() && columns.iter().all(|name| other.contains(name));
    Some(match shape.keys.iter().find(|key| is_same(&key.columns)) {
        Some(key) if key.active => Finding::good(what, format!("`{}` is active", key.name)),
        Some(key) => Finding::new(FindingState::Bad, what, format!("`{}` is not active", key.name))
            .hint("its index is still being built, or failed because two rows have the same values"),
        None => Finding::new(FindingState::Notable, what, "no alternate key: nothing keeps these columns unique")
            .hint("describe the key in a file of `tables/`; `flowgate provision` creates it"),
    })
}

fn tracking(usage: &TableUse, is_enabled: bool) -> Finding {
    let what = format!("{}: change tracking", usage.table);
    if is_enabled {
        return Finding::good(what, "on");
    }
    Finding::new(FindingState::Bad, what, "off: only whole reads are possible")
        .hint("switch on change tracking in the table's settings; it cannot be switched off again")
}
