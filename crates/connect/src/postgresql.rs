//! What the `postgres` connector needs beside its contract: the link to a server, its catalog, and
//! its values as columns.

pub(crate) mod catalog;
pub(crate) mod link;
pub(crate) mod values;
