//! The rows of a new environment: currencies, organisation, users, solutions, messages.

use std::sync::Arc;

use uuid::Uuid;

use crate::auth::Identity;
use crate::schema::{Schema, Table, TableId, stable_id};
use crate::storage::{Database, Value, encode};
use crate::write::link;

/// The id of the organisation's base currency.
pub(crate) fn base_currency() -> Uuid {
    stable_id("currency:GBP")
}

/// The id of the one role: it has every privilege, and so has every user.
fn administrator_role() -> Uuid {
    stable_id("role:System Administrator")
}

/// Writes one starting row from named values; names the table does not have are skipped.
fn put(database: &mut Database, logical: &str, id: Uuid, values: &[(&str, Value)]) {
    let Some(table) = database.schema.by_logical(logical).cloned() else {
        return;
    };
    let mut cells: Vec<_> =
        values.iter().filter_map(|(name, value)| Some((table.ordinal(name)?, Some(value.clone())))).collect();
    cells.extend(
        table
            .defaults
            .iter()
            .filter(|(ordinal, _)| !values.iter().any(|(name, _)| table.ordinal(name) == Some(*ordinal)))
            .map(|(ordinal, value)| (*ordinal, Some(Value::Int(*value)))),
    );
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    let stored = database.put(table.id, id, encode(&cells));
    debug_assert!(stored.is_ok(), "starting rows have distinct keys");
}

fn lookup(schema: &Schema, logical: &str, id: Uuid) -> Value {
    Value::Lookup(schema.by_logical(logical).map_or(0, |table| table.id), id)
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

pub(super) fn add_starting_rows(database: &mut Database, identity: &Identity, now: i64, change_tracking_days: i64) {
    let schema = Arc::clone(&database.schema);
    let result: Result<(), ()> = database.transaction(|database| {
        let who = |table: &str, id: Uuid| lookup(&schema, table, id);
        let system = |values: Vec<(&'static str, Value)>| -> Vec<(&'static str, Value)> {
            let user = who("systemuser", identity.user);
            let stamps = [
                ("createdon", Value::Time(now)),
                ("modifiedon", Value::Time(now)),
                ("createdby", user.clone()),
                ("modifiedby", user),
            ];
            values.into_iter().chain(stamps).collect()
        };
        for (code, name, symbol, rate) in [
            ("GBP", "Pound Sterling", "£", 10_000_000_000),
            ("USD", "US Dollar", "$", 12_700_000_000),
            ("EUR", "Euro", "€", 11_600_000_000),
        ] {
            let values = vec![
                ("currencyname", text(name)),
                ("isocurrencycode", text(code)),
                ("currencysymbol", text(symbol)),
                ("currencyprecision", Value::Int(2)),
                ("exchangerate", Value::Decimal(rate)),
                ("statecode", Value::Int(0)),
                ("statuscode", Value::Int(1)),
            ];
            put(database, "transactioncurrency", stable_id(&format!("currency:{code}")), &system(values));
        }
        add_organization(database, identity, change_tracking_days, &who, &system);
        let subject = vec![("title", text("Default Subject")), ("featuremask", Value::Int(1))];
        put(database, "subject", stable_id("subject:root"), &system(subject));
        add_solutions(database, &who, &system);
        add_views(database, &schema, &system);
        add_messages(database, &system);
        Ok(())
    });
    debug_assert!(result.is_ok());
}

/// The public views of a table: its active rows, all of them and the caller's own.
fn add_views(database: &mut Database, schema: &Schema, system: Stamp<'_>) {
    let with_state = |table: &&Arc<Table>| table.writable && table.known.state.is_some() && !table.is_intersect;
    for table in schema.live_tables().filter(with_state) {
        let Some(name) = table.primary_name() else { continue };
        let (logical, plural, shown) = (&table.logical, &table.plural, &name.logical);
        for (title, own) in [
            (format!("Active {plural}"), ""),
            (format!("My Active {plural}"), "<condition attribute=\"ownerid\" operator=\"eq-userid\"/>"),
        ] {
            if !own.is_empty() && table.known.owner.is_none() {
                continue;
            }
            let query = format!(
                "<fetch version=\"1.0\" mapping=\"logical\"><entity name=\"{logical}\"><attribute name=\"{shown}\"/><order attribute=\"{shown}\" descending=\"false\"/><filter type=\"and\"><condition attribute=\"statecode\" operator=\"eq\" value=\"0\"/>{own}</filter></entity></fetch>"
            );
            let values = vec![
                ("name", Value::Text(title.clone().into())),
                ("fetchxml", Value::Text(query.into())),
                ("returnedtypecode", Value::Text(logical.as_str().into())),
                ("querytype", Value::Int(0)),
                ("isdefault", Value::Int(i64::from(own.is_empty()))),
                ("statecode", Value::Int(0)),
                ("statuscode", Value::Int(1)),
            ];
            put(database, "savedquery", stable_id(&format!("view:{logical}:{title}")), &system(values));
        }
    }
}

type Lookup<'a> = &'a dyn Fn(&str, Uuid) -> Value;
type Stamp<'a> = &'a dyn Fn(Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)>;

fn add_organization(
    database: &mut Database,
    identity: &Identity,
    change_tracking_days: i64,
    who: Lookup<'_>,
    system: Stamp<'_>,
) {
    let organization = vec![
        ("name", text("contoso")),
        ("basecurrencyid", who("transactioncurrency", base_currency())),
        ("expirechangetrackingindays", Value::Int(change_tracking_days)),
        ("languagecode", Value::Int(1033)),
        ("localeid", Value::Int(2057)),
        ("currencydecimalprecision", Value::Int(2)),
        ("pricingdecimalprecision", Value::Int(2)),
        ("isduplicatedetectionenabled", Value::Int(1)),
        ("maxuploadfilesize", Value::Int(5_242_880)),
        ("blockedattachments", text("ade;adp;app;asa;asp;bat;cmd;com;cpl;exe;hta;js;jse;msi;ps1;vbs;wsf")),
    ];
    put(database, "organization", identity.organization, &system(organization));
    put(
        database,
        "businessunit",
        identity.business_unit,
        &system(vec![("name", text("contoso")), ("isdisabled", Value::Int(0))]),
    );
    let user = vec![
        ("fullname", text("# Flowgate Loader")),
        ("firstname", text("#")),
        ("lastname", text("Flowgate Loader")),
        ("domainname", text("flowgate-loader@contoso.example")),
        ("internalemailaddress", text("flowgate-loader@contoso.example")),
        ("applicationid", Value::Guid(identity.client)),
        ("azureactivedirectoryobjectid", Value::Guid(identity.object)),
        ("businessunitid", who("businessunit", identity.business_unit)),
        ("accessmode", Value::Int(4)),
    ];
    put(database, "systemuser", identity.user, &system(user));
    let team = vec![
        ("name", text("contoso")),
        ("businessunitid", who("businessunit", identity.business_unit)),
        ("administratorid", who("systemuser", identity.user)),
        ("isdefault", Value::Int(1)),
        ("teamtype", Value::Int(0)),
    ];
    put(database, "team", identity.team, &system(team));
    let role = vec![
        ("name", text("System Administrator")),
        ("businessunitid", who("businessunit", identity.business_unit)),
        ("organizationid", Value::Guid(identity.organization)),
        ("roleidunique", Value::Guid(administrator_role())),
        ("parentrootroleid", who("role", administrator_role())),
    ];
    put(database, "role", administrator_role(), &system(role));
    let schema = Arc::clone(&database.schema);
    if let Some(roles) = schema.many_to_many().find(|many| many.schema_name == "systemuserroles_association") {
        let linked = link(database, roles, 0, identity.user, administrator_role());
        debug_assert!(linked.is_ok(), "a new environment has no roles yet");
    }
    if let Some(members) = schema.many_to_many().find(|many| many.schema_name == "teammembership_association") {
        let linked = link(database, members, 0, identity.user, identity.team);
        debug_assert!(linked.is_ok(), "a new environment has no members yet");
    }
}

fn add_solutions(database: &mut Database, who: Lookup<'_>, system: Stamp<'_>) {
    let publishers =
        [("DefaultPublishercontoso", "Default Publisher for contoso", "new", 10_000), ("works", "Works", "wr", 10_000)];
    for (name, title, prefix, options) in publishers {
        let values = vec![
            ("uniquename", text(name)),
            ("friendlyname", text(title)),
            ("customizationprefix", text(prefix)),
            ("customizationoptionvalueprefix", Value::Int(options)),
        ];
        put(database, "publisher", stable_id(&format!("publisher:{name}")), &system(values));
    }
    let solutions = [
        ("Default", "Default Solution", "DefaultPublishercontoso"),
        ("Active", "Active Solution", "DefaultPublishercontoso"),
        ("agency_integration", "Agency integration", "works"),
    ];
    for (name, title, publisher) in solutions {
        let values = vec![
            ("uniquename", text(name)),
            ("friendlyname", text(title)),
            ("version", text("1.0.0.0")),
            ("ismanaged", Value::Int(0)),
            ("publisherid", who("publisher", stable_id(&format!("publisher:{publisher}")))),
        ];
        put(database, "solution", stable_id(&format!("solution:{name}")), &system(values));
    }
}

/// Messages that `sdkmessage` lists. UpsertMultiple never shows up among the filters.
const MESSAGES: &[&str] = &[
    "Create",
    "Update",
    "Delete",
    "Retrieve",
    "RetrieveMultiple",
    "CreateMultiple",
    "UpdateMultiple",
    "DeleteMultiple",
];

fn add_messages(database: &mut Database, system: Stamp<'_>) {
    for message in MESSAGES {
        put(database, "sdkmessage", stable_id(&format!("message:{message}")), &system(vec![("name", text(message))]));
    }
    let tables: Vec<TableId> = database.schema.live_tables().map(|table| table.id).collect();
    register_messages(database, &tables);
}

fn has_message(table: &Table, message: &str) -> bool {
    match message {
        "CreateMultiple" | "UpdateMultiple" => table.bulk && table.writable,
        "DeleteMultiple" => table.is_elastic,
        "Retrieve" | "RetrieveMultiple" => true,
        _ => table.writable,
    }
}

/// Adds the rows that say which messages these tables have.
pub(crate) fn register_messages(database: &mut Database, tables: &[TableId]) {
    let schema = Arc::clone(&database.schema);
    for id in tables {
        let table = schema.table(*id);
        for message in MESSAGES.iter().filter(|message| has_message(table, message)) {
            let row = stable_id(&format!("filter:{}:{message}", table.logical));
            let values = [
                ("sdkmessageid", lookup(&schema, "sdkmessage", stable_id(&format!("message:{message}")))),
                ("primaryobjecttypecode", text(&table.logical)),
            ];
            put(database, "sdkmessagefilter", row, &values);
        }
    }
}
