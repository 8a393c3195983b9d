//! What reading one flow or table needs from the rest of the project.

use flowgate_core::connector::ConnectorSpec;

use crate::connection::Connections;
use crate::files::Files;
use crate::report::Report;

pub(crate) struct Context<'a> {
    pub(crate) registry: &'a [ConnectorSpec],
    pub(crate) connections: Connections,
    pub(crate) files: Files,
    pub(crate) report: Report,
}
