//! The schema on the wire: service document, CSDL, definitions read and written.
//!
//! `render` turns the schema into the product's definition objects, `read` selects from them,
//! `write` and `update` build the next schema from posted ones. Promise: a definition that is read can be
//! found again by its id and by its name. Left out: solutions' layers, publishing.

mod columns;
mod edmx;
mod keys;
mod read;
mod relationships;
mod render;
mod update;
mod write;

pub(crate) use edmx::{edmx, service_document};
pub(crate) use keys::{finish_key, reactivate_key};
pub(crate) use read::answer;
pub(crate) use relationships::create_polymorphic;
pub(crate) use write::create_entities;
