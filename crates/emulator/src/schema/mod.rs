//! The schema of the stand-in: tables, columns, keys, relationships, choices.
//!
//! A [`Schema`] is immutable and shared; a metadata write builds the next one. Ordinals and
//! table ids only ever grow, so a row written under one schema can be read under a later one
//! and the other way round. What this module leaves out: rows (`storage`) and the wire form of
//! metadata (`metadata`).

mod build;
mod kinds;
mod label;
mod model;
mod spec;
mod standard;
mod starting;

pub(crate) use build::{
    NewColumn, NewTable, add_activity_columns, add_column, add_lookup, add_lookup_target, add_many_to_many, add_table,
    choice_set,
};
pub(crate) use kinds::{ColumnKind, DateBehavior, IntegerFormat, Opt, OptionSet, Required, State};
pub(crate) use label::{LANGUAGE, Label};
pub(crate) use model::{
    AlternateKey, Cascade, Column, DeletedPart, Follow, Follows, KeyStatus, Known, ManyToMany, OneToMany, Ordinal,
    Ownership, PartKind, Property, Relationship, Schema, Table, TableId,
};
pub(crate) use standard::add_system_lookups;
pub(crate) use starting::{extend_from_file, starting_schema};

use uuid::Uuid;

/// Whether a name can stand in documents, addresses and queries as it is.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The id of a schema part, the same on every start: the hash of its full name.
pub(crate) fn stable_id(name: &str) -> Uuid {
    uuid::Builder::from_random_bytes(xxhash_rust::xxh3::xxh3_128(name.as_bytes()).to_be_bytes()).into_uuid()
}
