//! The command line: one file a command, and what they share.

mod bench;
mod check;
mod doctor;
pub(crate) mod emulator;
mod init;
mod letters;
mod plan;
pub(crate) mod provision;
mod reference;
pub(crate) mod run;
mod runs;
mod schema;
mod signals;
mod status;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use flowgate_config::Loaded;
use flowgate_core::nearest::{nearest, quoted_list};
use flowgate_core::{CancellationToken, Clock, Code, FlowName, Project};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{PresentableLog, Printer, unwritten_answer};
use crate::wiring::Wiring;

use self::signals::Stop;

/// What every command returns: how it ended, or why it could not.
pub(crate) type Ended = Result<Exit, Failure>;

/// Config-first integration engine for Dynamics 365 and Microsoft Dataverse.
///
/// A project is a directory of YAML and SQL. `flowgate check` reads it offline, `flowgate plan` shows
/// what a run would change, `flowgate run` does it and accounts for every row.
#[derive(Debug, Parser)]
#[command(name = "flowgate", version, after_help = EXIT_HELP, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_HELP: &str = "Exit status: 0 complete; 1 failed; 2 configuration or usage; 3 complete, but rows were \
                         quarantined; 4 stopped by a guard; 130 interrupted, the next run goes on.";

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The project's directory
    #[arg(short = 'C', value_name = "DIR", default_value = ".", global = true)]
    dir: PathBuf,
    /// The environment: a file of `environments/`
    #[arg(long, value_name = "NAME", global = true)]
    env: Option<String>,
    /// Print exactly one JSON object on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but the answer and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Log to standard error: `info`, `debug`, `flowgate_engine=trace` [default: $FLOWGATE_LOG]
    #[arg(long, value_name = "FILTER", global = true)]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a new project, or a load made from a table's live metadata
    Init(init::Init),
    /// Read the whole project offline and report every mistake
    Check,
    /// Write JSON Schemas of the project's files, for editors
    Schema(schema::Schema),
    /// Show the tables, columns and keys that are missing, then create them
    Provision(provision::Provision),
    /// Reach every connection and say what is in the way of a run
    Doctor(doctor::Doctor),
    /// Show what a run would change, and send nothing
    Plan(plan::PlanFlows),
    /// Run flows: extract, stage, transform, compare, load
    Run(run::Run),
    /// List runs
    Runs(runs::Runs),
    /// Show the last run of every flow, and what to do next
    Status,
    /// Look at rows that were set aside, and decide about them
    #[command(subcommand)]
    Letters(letters::Letters),
    /// Serve a stand-in for Dataverse on this machine until it is stopped
    Emulator(emulator::Serve),
    /// Run the roads agency's example over four days and check the outcome
    Demo(crate::demo::Demo),
    /// Measure the loader against the limits of the service, on this machine
    Bench(bench::Bench),
    /// Describe the program as one JSON object, for the reference pages
    #[command(hide = true)]
    Reference,
}

impl Command {
    /// What the first Ctrl-C does to a command that does not stop by itself.
    fn stop(&self) -> Stop {
        match self {
            Self::Check
            | Self::Schema(_)
            | Self::Plan(_)
            | Self::Run(_)
            | Self::Runs(_)
            | Self::Status
            | Self::Letters(_)
            | Self::Reference => Stop::Soon,
            Self::Doctor(doctor) if !doctor.writes() => Stop::Soon,
            Self::Init(_)
            | Self::Provision(_)
            | Self::Doctor(_)
            | Self::Emulator(_)
            | Self::Demo(_)
            | Self::Bench(_) => Stop::InOrder,
        }
    }
}

/// What a command works with.
pub(crate) struct App {
    pub(crate) global: Global,
    pub(crate) printer: Printer,
    pub(crate) clock: Arc<dyn Clock>,
    /// Fires at the first Ctrl-C or SIGTERM.
    pub(crate) cancel: CancellationToken,
    pub(crate) is_logging: bool,
}

/// Does what the command line says, on a thread whose stack bears what the bounds of a SELECT allow.
pub(crate) fn main() -> Exit {
    let thread = std::thread::Builder::new().name("main".to_owned()).stack_size(flowgate_sql::STACK_BYTES);
    match thread.spawn(on_large_stack).map(std::thread::JoinHandle::join) {
        Ok(Ok(exit)) => exit,
        // It has said why where it panicked.
        Ok(Err(_)) => Exit::Failed,
        Err(error) => {
            let failure = Failure::from(error);
            Printer::new(false, false).failure(&failure);
            failure.exit()
        }
    }
}

fn on_large_stack() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage::explain(&error),
    };
    let global = arguments.global;
    let printer = Printer::new(global.json, global.quiet);
    #[cfg(debug_assertions)]
    if let Err(failure) = crate::failpoints::arm() {
        printer.report(&failure.report);
        return failure.exit();
    }
    let ended = start_logging(global.log.as_deref()).and_then(|is_logging| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_stack_size(flowgate_sql::STACK_BYTES)
            .enable_all()
            .build()?;
        #[cfg(debug_assertions)]
        let clock = crate::failpoints::clock();
        #[cfg(not(debug_assertions))]
        let clock = Arc::new(flowgate_http::SystemClock::new(1.0));
        let app = App { global, printer, clock, cancel: CancellationToken::new(), is_logging };
        runtime.block_on(async {
            signals::watch(app.cancel.clone(), arguments.command.stop(), printer)?;
            dispatch(&app, arguments.command).await
        })
    });
    let exit = ended.unwrap_or_else(|failure| {
        printer.failure(&failure);
        failure.exit()
    });
    match unwritten_answer() {
        Some(reason) => {
            let failure = Failure::new(Code::OUTPUT_NOT_WRITTEN, format!("the answer could not be written: {reason}"));
            printer.report(&failure.report);
            exit.and(failure.exit())
        }
        None => exit,
    }
}

async fn dispatch(app: &App, command: Command) -> Ended {
    match command {
        Command::Init(init) => init.run(app).await,
        Command::Check => Ok(check::run(app)),
        Command::Schema(schema) => schema.run(app),
        Command::Provision(provision) => provision.run(app).await,
        Command::Doctor(doctor) => doctor.run(app).await,
        Command::Plan(plan) => plan.run(app).await,
        Command::Run(run) => run.run(app).await,
        Command::Runs(runs) => runs.run(app),
        Command::Status => status::run(app),
        Command::Letters(letters) => letters.run(app),
        Command::Emulator(serve) => serve.run(app).await,
        Command::Demo(demo) => demo.run(app).await,
        Command::Bench(bench) => bench.run(app).await,
        Command::Reference => Ok(reference::run()),
    }
}

/// Logs go to standard error, and only when asked for. Returns whether they were.
fn start_logging(filter: Option<&str>) -> Result<bool, Failure> {
    let from_environment = std::env::var("FLOWGATE_LOG").ok();
    let Some(filter) = filter.or(from_environment.as_deref()).filter(|filter| !filter.is_empty()) else {
        return Ok(false);
    };
    let parsed = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(Code::USAGE, format!("`{filter}` is not a log filter: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(parsed).with_writer(|| PresentableLog).with_ansi(false).init();
    Ok(true)
}

impl App {
    /// The checked project; its warnings are shown.
    pub(crate) fn load(&self) -> Result<Project, Failure> {
        let Loaded { project, warnings } = self.read()?;
        if !warnings.problems.is_empty() && !self.printer.is_quiet {
            self.printer.report(&warnings);
        }
        Ok(project)
    }

    fn read(&self) -> Result<Loaded, Failure> {
        let environment = self.global.env.as_deref();
        Ok(flowgate_config::load(&self.global.dir, environment, flowgate_connect::CONNECTORS)?)
    }

    pub(crate) fn open(&self) -> Result<Wiring, Failure> {
        Ok(Wiring::new(self.load()?, Arc::clone(&self.clock))?)
    }
}

/// The flow of this name, or the nearest one in a hint.
pub(crate) fn flow_named(project: &Project, name: &str) -> Result<FlowName, Failure> {
    let found = project.flows.keys().find(|flow| flow.as_str() == name);
    found.cloned().ok_or_else(|| {
        let failure = Failure::new(Code::UNKNOWN_REFERENCE, format!("there is no flow `{name}`"));
        let names = project.flows.keys().map(FlowName::as_str);
        match nearest(name, names.clone()) {
            Some(near) => failure.nearest(Some(near)),
            None => failure.hint(format!("flows: {}", quoted_list(names))),
        }
    })
}
