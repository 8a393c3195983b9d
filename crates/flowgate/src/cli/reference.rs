//! `flowgate reference`: the program about itself, as one JSON object. `cargo xtask generate` makes
//! the reference pages from it.

use clap::CommandFactory;
use serde_json::{Value, json};

use super::Arguments;
use crate::exit::Exit;
use crate::render::Printer;

pub(crate) fn run() -> Exit {
    let connectors: Vec<Value> = flowgate_connect::CONNECTORS
        .iter()
        .map(|spec| {
            json!({
                "name": spec.name, "summary": spec.summary,
                "is_source": spec.is_source, "is_destination": spec.is_destination,
                "connection_schema": (spec.connection_schema)(), "stream_schema": (spec.stream_schema)(),
            })
        })
        .collect();
    let errors: Vec<Value> = flowgate_core::code::ALL
        .iter()
        .map(|entry| json!({ "code": entry.code.to_string(), "title": entry.title, "help": entry.help }))
        .collect();
    let mut root = Arguments::command().term_width(100);
    root.build();
    let mut commands = Vec::new();
    describe(&mut root, "", &mut commands);
    Printer::raw(&format!(
        "{:#}",
        json!({
            "schemas": flowgate_config::schema(flowgate_connect::CONNECTORS),
            "connectors": connectors,
            "errors": errors,
            "commands": commands,
        })
    ));
    Exit::Complete
}

/// The help of a command and of those below it.
fn describe(command: &mut clap::Command, name: &str, described: &mut Vec<Value>) {
    described.push(json!({ "name": name, "help": command.render_long_help().to_string() }));
    for below in command.get_subcommands_mut() {
        if below.is_hide_set() || below.get_name() == "help" {
            continue;
        }
        let name = format!("{name} {}", below.get_name());
        describe(below, name.trim_start(), described);
    }
}
