//! Pairs of many-to-many relationships: rows of their intersect tables.
//!
//! Promise: a pair exists once; making it again is the product's duplicate key.

use uuid::Uuid;

use super::Session;
use crate::error::{ApiError, Code};
use crate::schema::ManyToMany;
use crate::storage::{Database, Value, encode};

/// The id of an intersect row follows from the pair.
fn pair_id(many: &ManyToMany, ids: [Uuid; 2]) -> Uuid {
    let bytes = [many.id.as_bytes().as_slice(), ids[0].as_bytes(), ids[1].as_bytes()].concat();
    Uuid::from_u128(xxhash_rust::xxh3::xxh3_128(&bytes))
}

/// Ids in the order of the relationship's sides.
fn in_order(own_side: usize, own: Uuid, other: Uuid) -> [Uuid; 2] {
    if own_side == 0 { [own, other] } else { [other, own] }
}

pub(crate) fn link(
    database: &mut Database,
    many: &ManyToMany,
    own_side: usize,
    own: Uuid,
    other: Uuid,
) -> Result<(), ApiError> {
    let duplicate = || ApiError::new(Code::DuplicateRecord, "Cannot insert duplicate key.");
    let ids = in_order(own_side, own, other);
    let id = pair_id(many, ids);
    if database.get(many.intersect, &id).is_some() {
        return Err(duplicate());
    }
    let mut cells: Vec<_> = many.columns.iter().zip(ids).map(|(column, id)| (*column, Some(Value::Guid(id)))).collect();
    cells.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    database.put(many.intersect, id, encode(&cells)).map(|_| ()).map_err(|_| duplicate())
}

/// Takes a pair apart; one that is not there does not matter.
pub(crate) fn unlink(
    session: &Session<'_>,
    database: &mut Database,
    many: &ManyToMany,
    own_side: usize,
    own: Uuid,
    other: Uuid,
) {
    database.remove(many.intersect, pair_id(many, in_order(own_side, own, other)), session.now);
}
