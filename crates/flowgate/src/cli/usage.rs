//! A command line that was not understood, in the words of every other error.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use flowgate_core::Code;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Printer;

/// Shows help and versions that were asked for, and explains everything else.
pub(crate) fn explain(error: &clap::Error) -> Exit {
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    let printer = Printer::new(is_json, false);
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Printer::raw(styled(error).trim_end());
            Exit::Complete
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand if !is_json => {
            Printer::alarm(styled(error).trim_end());
            Exit::Usage
        }
        _ => {
            printer.failure(&failure(error));
            Exit::Usage
        }
    }
}

fn styled(error: &clap::Error) -> String {
    error.render().to_string()
}

fn failure(error: &clap::Error) -> Failure {
    let given = text_of(error, ContextKind::InvalidArg).unwrap_or_default();
    let (message, nearest) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = text_of(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            (format!("there is no command `{name}`"), text_of(error, ContextKind::SuggestedSubcommand))
        }
        ErrorKind::UnknownArgument => {
            (format!("there is no option `{given}` here"), text_of(error, ContextKind::SuggestedArg))
        }
        ErrorKind::MissingRequiredArgument => (format!("`{}` is missing", plain(&given)), None),
        ErrorKind::InvalidValue => {
            let value = text_of(error, ContextKind::InvalidValue).unwrap_or_default();
            (format!("`{value}` is not a value of `{}`", plain(&given)), text_of(error, ContextKind::SuggestedValue))
        }
        _ => (first_line(error), None),
    };
    let failure = Failure::new(Code::USAGE, message).nearest(nearest);
    match text_of(error, ContextKind::ValidValue) {
        Some(values) => failure.hint(format!("values: {values}")),
        None => failure.hint("`flowgate help`, or `flowgate help COMMAND`, shows what there is"),
    }
}

/// `<FLOW>...` as a person says it.
fn plain(argument: &str) -> String {
    argument.replace(['<', '>'], "").replace("...", "")
}

fn text_of(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) if !texts.is_empty() => Some(texts.join(", ")),
        _ => None,
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
