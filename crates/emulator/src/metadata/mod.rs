//! The schema on the wire: service document, CSDL, definitions read and written.
//!
//! `render` turns the schema into the product's definition objects, `read` selects from them,
//! `write` builds the next schema from posted ones, `update` from those that are put in place,
//! `changes` tells what changed since when. Promise: a definition that is read can be found again
//! by its id and by its name. Left out: forms, views and other parts of an app.

mod changes;
mod columns;
mod edmx;
mod keys;
mod options;
mod read;
mod relationships;
mod render;
mod shadows;
mod update;
mod write;

pub(crate) use changes::retrieve_changes;
pub(crate) use edmx::{edmx, service_document};
pub(crate) use keys::{finish_key, reactivate_key};
pub(crate) use options::option_action;
pub(crate) use read::answer;
pub(crate) use relationships::create_polymorphic;
pub(crate) use render::privileges;
pub(crate) use update::publish;
pub(crate) use write::create_entities;
