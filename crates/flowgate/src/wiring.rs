//! The parts of a project, opened and put together: connections, store, engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use flowgate_config::resolve_secrets;
use flowgate_core::connector::{Connections, OpenRequest, Opened};
use flowgate_core::nearest::quoted_list;
use flowgate_core::ports::LaneLeases;
use flowgate_core::project::Connection;
use flowgate_core::{Clock, Code, ConnectionName, ConnectorError, ErrorKind, Project};
use flowgate_dataverse::Dataverse;
use flowgate_engine::{Engine, Observer};
use flowgate_store::{SqliteLanes, SqliteStore, Store};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::emulation::{self, Emulation};

/// A project whose systems can be reached.
pub(crate) struct Wiring {
    pub(crate) project: Arc<Project>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lanes: Arc<SqliteLanes>,
    pub(crate) connections: Arc<OpenConnections>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Wiring {
    pub(crate) fn new(project: Project, clock: Arc<dyn Clock>) -> Result<Self, flowgate_store::StoreError> {
        let store = SqliteStore::open(&project.state_dir)?;
        let lanes = Arc::new(SqliteLanes::open(&project.state_dir)?);
        let project = Arc::new(project);
        let shared: Arc<dyn LaneLeases> = Arc::<SqliteLanes>::clone(&lanes);
        let connections = OpenConnections::new(Arc::clone(&project), Arc::clone(&clock)).sharing(shared);
        Ok(Self { project, store: Arc::new(store), lanes, connections: Arc::new(connections), clock })
    }

    pub(crate) fn engine(&self, observer: Arc<dyn Observer>) -> Engine {
        let connections: Arc<dyn Connections> = Arc::<OpenConnections>::clone(&self.connections);
        Engine {
            project: Arc::clone(&self.project),
            store: Arc::clone(&self.store),
            connections,
            clock: Arc::clone(&self.clock),
            observer,
        }
    }
}

/// The project's connections. Each is opened once, when it is first asked for, and its emulator
/// started if it has one, so that all flows of a command share what it learns about its limits.
pub(crate) struct OpenConnections {
    project: Arc<Project>,
    clock: Arc<dyn Clock>,
    /// A command that keeps no state shares nothing.
    lanes: Option<Arc<dyn LaneLeases>>,
    opened: Mutex<BTreeMap<String, Opened>>,
    emulations: Mutex<BTreeMap<String, Arc<Emulation>>>,
}

impl OpenConnections {
    pub(crate) fn new(project: Arc<Project>, clock: Arc<dyn Clock>) -> Self {
        Self { project, clock, lanes: None, opened: Mutex::default(), emulations: Mutex::default() }
    }

    /// Budgets share the limits of the service with other processes.
    #[must_use]
    pub(crate) fn sharing(mut self, lanes: Arc<dyn LaneLeases>) -> Self {
        self.lanes = Some(lanes);
        self
    }

    fn connection(&self, name: &str) -> Result<&Connection, ConnectorError> {
        self.project.connections.get(name).ok_or_else(|| {
            let known = quoted_list(self.project.connections.keys().map(ConnectionName::as_str));
            let message = format!("there is no connection `{name}`");
            ConnectorError::new(ErrorKind::Configuration, Code::UNKNOWN_REFERENCE, message)
                .hint(format!("there is {known}"))
        })
    }

    async fn open_once(&self, name: &str) -> Result<Opened, ConnectorError> {
        let connection = self.connection(name)?;
        let spec = flowgate_connect::find(&connection.connector).ok_or_else(|| {
            let message = format!("there is no connector `{}`", connection.connector);
            ConnectorError::new(ErrorKind::Internal, Code::NOT_SUPPORTED, message)
        })?;
        let settings = self.settings(connection).await?;
        (spec.open)(self.request(connection, &settings))
    }

    /// The environment behind a connection, for what only an environment has.
    pub(crate) async fn open_dataverse(&self, name: &str) -> Result<Arc<Dataverse>, ConnectorError> {
        let connection = self.connection(name)?;
        if connection.connector != "dataverse" {
            let message = format!("connection `{name}` is of the kind `{}`, not `dataverse`", connection.connector);
            return Err(ConnectorError::new(ErrorKind::Configuration, Code::UNKNOWN_REFERENCE, message));
        }
        let settings = self.settings(connection).await?;
        flowgate_connect::open_dataverse(self.request(connection, &settings))
    }

    fn request<'a>(&'a self, connection: &'a Connection, settings: &'a Value) -> OpenRequest<'a> {
        OpenRequest {
            name: connection.name.as_str(),
            settings,
            project_dir: &self.project.dir,
            clock: Arc::clone(&self.clock),
            budget: connection.budget.as_ref(),
            lanes: self.lanes.clone(),
            time_zone: &self.project.time_zone,
        }
    }

    /// The block of a connection with its secrets, or with the address of its emulator.
    async fn settings(&self, connection: &Connection) -> Result<Value, ConnectorError> {
        let name = connection.name.as_str();
        let settings = resolve_secrets(&connection.settings, &self.project.dir).map_err(|error| {
            let hints = error.hints();
            let message = format!("connection `{name}` cannot be opened: {error}");
            let mut refused = ConnectorError::new(ErrorKind::Configuration, error.code(), message).caused_by(error);
            refused.hints = hints;
            refused
        })?;
        Ok(match self.emulation(name).await? {
            Some(emulation) => emulation.settings(&settings),
            None => settings,
        })
    }

    /// The emulator behind a connection, started if it does not run; `None` for one without.
    pub(crate) async fn emulation(&self, name: &str) -> Result<Option<Arc<Emulation>>, ConnectorError> {
        let connection = self.connection(name)?;
        let settings = match &connection.settings["emulator"] {
            Value::Null => return Ok(None),
            settings => settings,
        };
        let mut emulations = self.emulations.lock().await;
        if let Some(emulation) = emulations.get(name) {
            return Ok(Some(Arc::clone(emulation)));
        }
        let dir = self.project.dir.join(".flowgate").join("emulator").join(name);
        let emulation = Arc::new(emulation::share(&dir, &self.project.dir, settings).await?);
        emulations.insert(name.to_owned(), Arc::clone(&emulation));
        Ok(Some(emulation))
    }
}

#[async_trait]
impl Connections for OpenConnections {
    async fn open(&self, connection: &str) -> Result<Opened, ConnectorError> {
        let mut opened = self.opened.lock().await;
        if let Some(open) = opened.get(connection) {
            return Ok(open.clone());
        }
        let open = self.open_once(connection).await?;
        opened.insert(connection.to_owned(), open.clone());
        Ok(open)
    }
}
