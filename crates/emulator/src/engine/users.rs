//! Callers by what their tokens and headers say.

use uuid::Uuid;

use crate::storage::{Database, ValueRef};

/// The application user of a client, if the environment has one.
pub(crate) fn user_of_application(database: &Database, application: Uuid) -> Option<(Uuid, Uuid)> {
    find_user(database, "applicationid", application)
}

/// A user by Entra object id.
pub(crate) fn user_of_object(database: &Database, object: Uuid) -> Option<(Uuid, Uuid)> {
    find_user(database, "azureactivedirectoryobjectid", object)
}

/// A user by its own id.
pub(crate) fn user_of_id(database: &Database, id: Uuid) -> Option<(Uuid, Uuid)> {
    let users = database.schema.by_logical("systemuser")?;
    let row = database.get(users.id, &id)?;
    Some((id, row.lookup(users.ordinal("businessunitid")).map_or(Uuid::nil(), |(_, unit)| unit)))
}

/// The user whose column holds an id, with its business unit.
fn find_user(database: &Database, column: &str, wanted: Uuid) -> Option<(Uuid, Uuid)> {
    let users = database.schema.by_logical("systemuser")?;
    let (column, unit) = (users.ordinal(column)?, users.ordinal("businessunitid"));
    let mut rows = database.store(users.id).rows_after(None);
    let (id, row) = rows.find(|(_, row)| row.get(column) == Some(ValueRef::Guid(wanted)))?;
    Some((*id, row.lookup(unit).map_or(Uuid::nil(), |(_, id)| id)))
}
