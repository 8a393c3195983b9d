//! `files`: CSV, JSON lines and Parquet files, plain or compressed.
//!
//! A stream is every file that its pattern matches, read whole and in the order of their names.
//! Files of one stream must have the same columns; later files may add some. Text formats land as
//! text, Parquet with its types; `_file` and `_line` say where a row came from. A line that is not
//! of the file's form is set aside with its line number and the rest goes on. Every read is the
//! whole image, so deletes are seen; a file that changes while it is read fails the read.
//!
//! Left out: writing files, file systems that are not mounted, reading on from where a file ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use flowgate_core::connector::{OpenRequest, Opened};
use flowgate_core::source::{Image, ReadRequest, Reading, StreamInfo};
use flowgate_core::{ConnectorError, Source};
use serde_json::{Value, json};

use crate::blocking;
pub(crate) use crate::formats::FileSettings;
use crate::formats::{self, Layout};
use crate::settings;

const NAME: &str = "files";

/// Every read is whole.
pub(crate) fn sees_deletes(_stream: &Value) -> bool {
    true
}

pub(crate) fn open(OpenRequest { settings, project_dir, .. }: OpenRequest<'_>) -> Result<Opened, ConnectorError> {
    let settings = settings::read(NAME, settings)?;
    let files = Files { settings, project_dir: project_dir.into() };
    Ok(Opened { source: Some(Arc::new(files)), destination: None })
}

#[derive(Debug)]
struct Files {
    settings: FileSettings,
    project_dir: Arc<Path>,
}

impl Files {
    fn layout(&self, stream: &Value) -> Result<Layout, ConnectorError> {
        Layout::new(settings::read(NAME, stream)?, &self.settings)
    }

    async fn plan(&self, stream: &Value) -> Result<formats::Plan, ConnectorError> {
        let layout = self.layout(stream)?;
        let project_dir = PathBuf::from(&*self.project_dir);
        blocking::run(move || formats::plan(layout, &project_dir)).await
    }
}

#[async_trait]
impl Source for Files {
    async fn check(&self) -> Result<String, ConnectorError> {
        if self.settings.path.is_none() {
            return Ok(format!("files below `{}`", self.project_dir.display()));
        }
        Ok(self.plan(&Value::Null).await?.summary())
    }

    /// The one stream of the connection's own `path:`, if it has one.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectorError> {
        let Some(path) = &self.settings.path else { return Ok(Vec::new()) };
        let plan = self.plan(&Value::Null).await?;
        let stream = StreamInfo {
            name: path.clone(),
            schema: plan.schema.clone(),
            key: Vec::new(),
            settings: json!({ "path": path }),
        };
        Ok(vec![stream])
    }

    async fn read(&self, request: ReadRequest) -> Result<Reading, ConnectorError> {
        let plan = self.plan(&request.settings).await?;
        let schema = plan.schema.clone();
        let batches = blocking::batches(request.cancel, move |sink| plan.read(sink));
        Ok(Reading { schema, image: Image::Whole, warning: None, batches })
    }
}
