//! Creating rows.
//!
//! Promise: the row that is stored carries every column the server fills, in the order checks,
//! binds, defaults, system columns, state, money, keys. Related rows given inside the body are
//! made in the same transaction. Left out: where ids of a request's answer go.

use std::sync::Arc;

use uuid::Uuid;

use super::events::{Happening, Message};
use super::parse::{RowInput, parse_row};
use super::resolve::bind_value;
use super::{Session, key_violation, money, run_plugins, state, under_status};
use crate::address::{Reference, elastic_row_id, parse_reference};
use crate::digests::{self, DIGESTS};
use crate::error::{ApiError, Code};
use crate::schema::{ColumnKind, OneToMany, Ordinal, Property, Relationship, Required, Schema, Table, TableId};
use crate::storage::{Database, Job, JobKind, Value, encode};

type Cell = (Ordinal, Option<Value>);

/// Bytes of a partition's name, and what it cannot hold.
const PARTITION_BYTES_MAX: usize = 1024;
const PARTITION_FORBIDDEN: &[char] = &['/', '<', '>', '*', '%', '&', ':', '\\', '?'];
/// Deepest nesting of related rows in one body.
const DEPTH_MAX: u32 = 10;

/// Creates a row and returns where it is kept: its id, or a hash of id and partition.
pub(crate) fn create(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    input: RowInput,
) -> Result<Uuid, ApiError> {
    create_nested(session, database, table, input, 0)
}

fn create_nested(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    mut input: RowInput,
    depth: u32,
) -> Result<Uuid, ApiError> {
    if !table.writable && depth == 0 {
        return Err(not_creatable(table));
    }
    let schema = Arc::clone(&database.schema);
    let parents = create_parents(session, database, table, &mut input, depth)?;
    let id = input.id.unwrap_or_else(|| super::events::mint(session, database));
    let mut cells = Vec::with_capacity(input.cells.len() + 24);
    // Whether a state that a form could not give is taken is a setting, checked below.
    let takes = |ordinal: Ordinal| table.column(ordinal).for_create || table.known.state == Some(ordinal);
    cells.extend(input.cells.drain(..).filter(|(ordinal, _)| takes(*ordinal)));
    for (ordinal, target, bind) in &input.binds {
        if table.column(*ordinal).for_create {
            cells.push((*ordinal, bind_value(session, database, table, *ordinal, *target, bind)?));
        }
    }
    cells.extend(parents);
    check_required(table, &cells)?;
    let digests = session.sink.then(|| digests::cell(&schema, table, None, &cells));
    if session.settings.defaults_replace_nulls {
        cells.retain(|(ordinal, value)| value.is_some() || !table.defaults.iter().any(|(known, _)| known == ordinal));
    }
    add_defaults(table, &mut cells);
    if state::complete(table, &mut cells, None)? != Some(0)
        && !session.settings.create_inactive
        && table.known.state.is_some()
    {
        return Err(ApiError::new(Code::InvalidState, format!("A {} cannot be created in that state.", table.logical)));
    }
    add_system_columns(session, database, &schema, table, &mut cells)?;
    number_columns(database, table, &mut cells);
    name_people(table, &mut cells, None);
    money::complete(session, database, &schema, table, &mut cells, None)?;
    let row_id = place(table, id, &mut cells)?;
    if !input.replaces && database.get(table.id, &row_id).is_some() {
        let taken = ApiError::new(Code::DuplicateRecord, "A record with matching key values already exists.");
        return Err(under_status(taken, session.settings.duplicate_id_status));
    }
    if session.detect_duplicates {
        super::duplicates::check(database, &schema, table, &cells, None)?;
    }
    if let Some(digests) = digests {
        keep_keys_only(table, &mut cells, digests);
    }
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    let stored = database.put(table.id, row_id, encode(&cells));
    // Digests are no column, so plug-ins and events do not see them.
    cells.retain(|(ordinal, _)| *ordinal != DIGESTS);
    stored.map_err(|violation| key_violation(&schema, table, &violation, (row_id, &cells), session.settings))?;
    if !session.plugins.is_empty() {
        run_plugins(session, database, &schema, table, row_id)?;
    }
    let happening = Happening { message: Message::Create, table, row: id, cells: &cells };
    if !input.replaces {
        super::events::raise(session, database, &happening)?;
    }
    schedule_expiry(session, database, table, row_id);
    super::activities::follow(database, table, row_id, session.now);
    store_images(session, database, table, row_id, std::mem::take(&mut input.images))?;
    create_children(session, database, &schema, table, row_id, input.children, depth)?;
    Ok(row_id)
}

fn not_creatable(table: &Table) -> ApiError {
    ApiError::new(
        Code::MessageNotSupported,
        format!("The 'Create' method does not support entities of type '{}'.", table.logical),
    )
}

/// Rows of elastic tables may have a time to live.
pub(super) fn schedule_expiry(session: &Session<'_>, database: &mut Database, table: &Table, id: Uuid) {
    let row = database.get(table.id, &id);
    if let Some(seconds) = row.and_then(|row| row.int(table.known.ttl)) {
        let due = (session.now + seconds) as f64;
        let kind = JobKind::Expire { table: table.id, id };
        database.schedule(Job { due, kind });
    }
}

/// The primary id of a row that is kept under `key`.
pub(crate) fn primary_id_of(database: &Database, table: &Table, key: Uuid) -> Uuid {
    match database.get(table.id, &key).filter(|_| table.is_elastic).and_then(|row| row.get(0)) {
        Some(crate::storage::ValueRef::Guid(id)) => id,
        _ => key,
    }
}

/// Puts images that a body carries into their columns.
pub(super) fn store_images(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    id: Uuid,
    images: Vec<(Ordinal, Option<Vec<u8>>)>,
) -> Result<(), ApiError> {
    for (ordinal, image) in images {
        match image {
            Some(bytes) => {
                let content = super::Content { name: String::new(), mime: String::new(), bytes };
                super::store_content(session, database, table, id, ordinal, content)?;
            }
            None => super::clear_content(session, database, table, id, ordinal)?,
        }
    }
    Ok(())
}

/// A new id, rising with time as the product's sequential ids do.
pub(super) fn new_id(database: &Database, now: i64) -> Uuid {
    // 48 bits of milliseconds, then the version counter, which no two rows share.
    let millis = (now.max(0) as u128) * 1000;
    let version = u128::from(database.version() + 1);
    uuid::Builder::from_u128((millis << 80) | (0x7 << 76) | (0x2 << 62) | (version & 0x3fff_ffff_ffff_ffff)).into_uuid()
}

/// Elastic rows are kept under id and partition together; the id itself becomes a cell.
fn place(table: &Table, id: Uuid, cells: &mut Vec<Cell>) -> Result<Uuid, ApiError> {
    let Some(partition) = table.known.partition else {
        return Ok(id);
    };
    cells.push((0, Some(Value::Guid(id))));
    let given = cells.iter().find_map(|(ordinal, value)| match value {
        Some(Value::Text(text)) if *ordinal == partition => Some(text.clone()),
        _ => None,
    });
    if given.is_none() {
        cells.retain(|(ordinal, _)| *ordinal != partition);
        cells.push((partition, Some(Value::Text(id.to_string().into()))));
    }
    let given = given.as_deref();
    if given.is_some_and(|text| text.len() > PARTITION_BYTES_MAX || text.contains(PARTITION_FORBIDDEN)) {
        let message = "The partitionid has more than 1,024 bytes, or characters that a partition cannot have.";
        return Err(ApiError::new(Code::InvalidArgument, message));
    }
    Ok(elastic_row_id(id, given))
}

fn check_required(table: &Table, cells: &[Cell]) -> Result<(), ApiError> {
    for (ordinal, value) in cells {
        let column = table.column(*ordinal);
        if value.is_none() && column.required == Required::System && !is_filled_by_server(table, *ordinal) {
            return Err(required(table, &column.logical));
        }
    }
    let missing = table.live_columns().find(|column| {
        column.enforced && !cells.iter().any(|(ordinal, value)| *ordinal == column.ordinal && value.is_some())
    });
    match missing {
        Some(column) => Err(required(table, &column.logical)),
        None => Ok(()),
    }
}

fn is_filled_by_server(table: &Table, ordinal: Ordinal) -> bool {
    let known = table.known;
    [known.owner, known.state, known.status].contains(&Some(ordinal)) || table.column(ordinal).auto_number.is_some()
}

pub(super) fn required(table: &Table, column: &str) -> ApiError {
    ApiError::new(
        Code::RequiredFieldMissing,
        format!("Required field '{column}' is missing on entity '{}'.", table.logical),
    )
}

fn has(cells: &[Cell], ordinal: Ordinal) -> bool {
    cells.iter().any(|(found, _)| *found == ordinal)
}

/// Defaults stand in for columns left out, not for explicit nulls.
fn add_defaults(table: &Table, cells: &mut Vec<Cell>) {
    for (ordinal, default) in &table.defaults {
        if !has(cells, *ordinal) {
            cells.push((*ordinal, Some(Value::Int(*default))));
        }
    }
}

fn add_system_columns(
    session: &Session<'_>,
    database: &Database,
    schema: &Schema,
    table: &Table,
    cells: &mut Vec<Cell>,
) -> Result<(), ApiError> {
    let known = table.known;
    let users = schema.by_logical("systemuser").map_or(0, |table| table.id);
    let overridden = cells.iter().find_map(|(ordinal, value)| match value {
        Some(Value::Time(at)) if Some(*ordinal) == known.overridden_created_on => Some(*at),
        _ => None,
    });
    if overridden.is_some() && !session.settings.overridden_created_on {
        let message = "Principal user is missing prvOverrideCreatedOnCreatedBy privilege.";
        return Err(ApiError::new(Code::PrivilegeDenied, message));
    }
    let user = Some(Value::Lookup(users, session.user));
    let delegate = session.delegate.map(|id| Value::Lookup(users, id));
    // The product keeps the moment of migration in the override column itself.
    if let Some(cell) =
        cells.iter_mut().find(|(ordinal, value)| Some(*ordinal) == known.overridden_created_on && value.is_some())
    {
        cell.1 = Some(Value::Time(session.now));
    }
    let mut add = |ordinal: Option<Ordinal>, value: Option<Value>| {
        if let (Some(ordinal), Some(value)) = (ordinal, value) {
            cells.push((ordinal, Some(value)));
        }
    };
    add(known.created_on, Some(Value::Time(overridden.unwrap_or(session.now))));
    add(known.modified_on, Some(Value::Time(session.now)));
    add(known.created_by, user.clone());
    add(known.modified_by, user);
    add(known.created_on_behalf, delegate.clone());
    add(known.modified_on_behalf, delegate);
    if let Some(organization) = known.organization {
        let table = schema.by_logical("organization").map_or(0, |table| table.id);
        add(Some(organization), Some(Value::Lookup(table, session.organization)));
    }
    if table.is_activity {
        add(table.ordinal("activitytypecode"), Some(Value::Text(table.logical.as_str().into())));
    }
    add_owner(session, database, schema, table, cells)
}

/// Fills the owner when none is given, and what follows from the owner.
pub(super) fn add_owner(
    session: &Session<'_>,
    database: &Database,
    schema: &Schema,
    table: &Table,
    cells: &mut Vec<Cell>,
) -> Result<(), ApiError> {
    let Some(owner) = table.known.owner else {
        return Ok(());
    };
    let users = schema.by_logical("systemuser").map_or(0, |table| table.id);
    let given = cells.iter().find_map(|(ordinal, value)| match value {
        Some(Value::Lookup(table, id)) if *ordinal == owner => Some((*table, *id)),
        _ => None,
    });
    let (owner_table, owner_id) = given.unwrap_or((users, session.user));
    let is_user = owner_table == users;
    let unit = if owner_id == session.user {
        session.business_unit
    } else {
        business_unit_of(database, schema, owner_table, owner_id)?
    };
    let units = schema.by_logical("businessunit").map_or(0, |table| table.id);
    let value = Some(Value::Lookup(owner_table, owner_id));
    cells.retain(|(ordinal, _)| *ordinal != owner);
    cells.push((owner, value.clone()));
    let known = table.known;
    for (ordinal, value) in [
        (known.owning_business_unit, Some(Value::Lookup(units, unit))),
        (known.owning_user, value.clone().filter(|_| is_user)),
        (known.owning_team, value.filter(|_| !is_user)),
    ] {
        if let Some(ordinal) = ordinal {
            cells.push((ordinal, value));
        }
    }
    Ok(())
}

fn business_unit_of(database: &Database, schema: &Schema, table: TableId, id: Uuid) -> Result<Uuid, ApiError> {
    let owner = schema.table(table);
    let row = database.get(table, &id);
    let unit = row.and_then(|row| row.lookup(owner.ordinal("businessunitid")));
    unit.map(|(_, id)| id).ok_or_else(|| {
        ApiError::new(Code::InvalidOwner, format!("The owner {id} does not exist or belongs to no business unit."))
    })
}

fn number_columns(database: &mut Database, table: &Table, cells: &mut Vec<Cell>) {
    for column in table.columns.iter().filter(|column| column.auto_number.is_some()) {
        let given = cells.iter().any(|(ordinal, value)| *ordinal == column.ordinal && value.is_some());
        if let (false, Some(prefix)) = (given, &column.auto_number) {
            cells.retain(|(ordinal, _)| *ordinal != column.ordinal);
            let number = database.next_number(table.id);
            cells.push((column.ordinal, Some(Value::Text(format!("{prefix}{number:05}").into()))));
        }
    }
}

/// Keeps `fullname` of people what their first and last names say.
pub(super) fn name_people(table: &Table, cells: &mut Vec<Cell>, before: Option<&crate::storage::Row>) {
    if !matches!(table.logical.as_str(), "contact" | "systemuser") {
        return;
    }
    let (Some(first), Some(last), Some(full)) =
        (table.ordinal("firstname"), table.ordinal("lastname"), table.ordinal("fullname"))
    else {
        return;
    };
    if before.is_some() && !has(cells, first) && !has(cells, last) {
        return;
    }
    let part = |ordinal: Ordinal| match cells.iter().find(|(found, _)| *found == ordinal) {
        Some((_, Some(Value::Text(text)))) => text.to_string(),
        Some(_) => String::new(),
        None => match before.and_then(|row| row.get(ordinal)) {
            Some(crate::storage::ValueRef::Text(text)) => text.to_owned(),
            _ => String::new(),
        },
    };
    let name = format!("{} {}", part(first), part(last)).trim().to_owned();
    cells.push((full, (!name.is_empty()).then(|| Value::Text(name.into()))));
}

/// The `sink` profile stores what identity and state need, and digests of the rest.
pub(super) fn keep_keys_only(table: &Table, cells: &mut Vec<Cell>, digests: Cell) {
    let known = &table.known;
    let kept = [known.state, known.status, known.partition, known.ttl];
    cells.retain(|(ordinal, _)| {
        kept.contains(&Some(*ordinal)) || table.keys.iter().any(|key| key.columns.contains(ordinal))
    });
    cells.push(digests);
}

/// Creates rows given inside single-valued navigation properties, before the row that needs them.
fn create_parents(
    session: &Session<'_>,
    database: &mut Database,
    table: &Table,
    input: &mut RowInput,
    depth: u32,
) -> Result<Vec<Cell>, ApiError> {
    let mut cells = Vec::new();
    let mut rest = Vec::new();
    for (name, property, body) in std::mem::take(&mut input.children) {
        let Property::ToOne(ordinal, target) = property else {
            rest.push((name, property, body));
            continue;
        };
        let ColumnKind::Lookup { targets } = &table.column(ordinal).kind else {
            continue;
        };
        let target = targets[usize::from(target)].table;
        let id = create_from_json(session, database, target, &body, depth)?;
        cells.push((ordinal, Some(Value::Lookup(target, id))));
    }
    input.children = rest;
    Ok(cells)
}

fn create_from_json(
    session: &Session<'_>,
    database: &mut Database,
    table: TableId,
    body: &serde_json::Value,
    depth: u32,
) -> Result<Uuid, ApiError> {
    if depth >= DEPTH_MAX {
        return Err(ApiError::bad_request("Related rows are nested too deeply."));
    }
    let schema = Arc::clone(&database.schema);
    let table = schema.table(table);
    let input = parse_row(&schema, table, body.to_string().as_bytes(), session.settings.value_rules())?;
    create_nested(session, database, table, input, depth + 1)
}

/// Creates or links rows given inside collection-valued navigation properties.
fn create_children(
    session: &Session<'_>,
    database: &mut Database,
    schema: &Schema,
    table: &Table,
    id: Uuid,
    children: Vec<(String, Property, serde_json::Value)>,
    depth: u32,
) -> Result<(), ApiError> {
    for (name, property, body) in children {
        let Property::ToMany(index) = property else {
            return Err(super::parse::unknown_property(table, &name));
        };
        let items =
            body.as_array().ok_or_else(|| ApiError::bad_request(format!("The property '{name}' takes an array.")))?;
        for item in items {
            match &schema.relationships[usize::from(index)] {
                Relationship::OneToMany(one) => add_child(session, database, schema, (table, id), one, item, depth)?,
                Relationship::ManyToMany(many) => {
                    let side = many.side_of(table.id, name.trim_end_matches("@odata.bind"));
                    let other = match item.as_str() {
                        Some(link) => linked_row(database, schema, link)?.1,
                        None => create_from_json(session, database, many.tables[1 - side], item, depth)?,
                    };
                    super::link(database, many, side, id, other)?;
                }
            }
        }
    }
    Ok(())
}

/// The row a bind names.
fn linked_row(database: &Database, schema: &Schema, link: &str) -> Result<(Arc<Table>, Uuid), ApiError> {
    match parse_reference(schema, link)? {
        Reference::Row(table, address) => {
            let id = address.find(database, &table).ok_or_else(|| address.missing(&table))?;
            Ok((table, id))
        }
        Reference::ContentId(id) => Err(super::unknown_content_id(&id)),
    }
}

/// Creates a row below another, or moves an existing one there.
fn add_child(
    session: &Session<'_>,
    database: &mut Database,
    schema: &Schema,
    (table, id): (&Table, Uuid),
    relationship: &OneToMany,
    item: &serde_json::Value,
    depth: u32,
) -> Result<(), ApiError> {
    let Some(link) = item.as_str() else {
        let child = schema.table(relationship.referencing);
        let input = parse_row(schema, child, item.to_string().as_bytes(), session.settings.value_rules())?;
        return link_child(session, database, child, input, relationship.column, (table.id, id), depth);
    };
    let (child, child_id) = linked_row(database, schema, link)?;
    if child.id != relationship.referencing {
        return Err(ApiError::bad_request(format!("The row '{link}' does not belong to that collection.")));
    }
    let cell = (relationship.column, Some(Value::Lookup(table.id, id)));
    super::update::apply(session, database, &child, child_id, vec![cell])
}

fn link_child(
    session: &Session<'_>,
    database: &mut Database,
    child: &Table,
    mut input: RowInput,
    column: Ordinal,
    (table, id): (TableId, Uuid),
    depth: u32,
) -> Result<(), ApiError> {
    if depth >= DEPTH_MAX {
        return Err(ApiError::bad_request("Related rows are nested too deeply."));
    }
    // The bind names the right target even where the lookup has several.
    if let ColumnKind::Lookup { targets } = &child.column(column).kind {
        let index = targets.iter().position(|target| target.table == table).unwrap_or(0);
        input.binds.retain(|(ordinal, ..)| *ordinal != column);
        let reference = Reference::Row(Arc::clone(database.schema.table(table)), crate::address::RowAddress::Id(id));
        input.binds.push((column, index as u16, super::BindReference::To(reference)));
    }
    create_nested(session, database, child, input, depth + 1).map(|_| ())
}
