//! `flowgate schema`: what editors need to complete and check the files of a project.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{App, Ended};
use crate::exit::Exit;
use crate::render::Printer;

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Write one file for each kind, instead of printing all as one object
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Schema {
    pub(crate) fn run(self, app: &App) -> Ended {
        let schemas = flowgate_config::schema(flowgate_connect::CONNECTORS);
        let Some(dir) = self.out else {
            Printer::raw(&format!("{:#}", json!(schemas)));
            return Ok(Exit::Complete);
        };
        fs_err::create_dir_all(&dir)?;
        for (name, schema) in &schemas {
            fs_err::write(dir.join(name), format!("{schema:#}\n"))?;
        }
        let names: Vec<_> = schemas.keys().cloned().collect();
        app.printer.json(&json!({ "dir": dir, "files": names.iter().map(|name| json!(name)).collect::<Vec<Value>>() }));
        app.printer.answer(format!("{} written to {}", names.join(", "), dir.display()));
        app.printer.answer("first line of a flow:  # yaml-language-server: $schema=…/flow.schema.json");
        Ok(Exit::Complete)
    }
}
