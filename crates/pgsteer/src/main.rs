//! The program `pgsteer`: from the command line to what it asks for, and the exit code.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use pgsteer::check::Question;
use pgsteer::cli::{self, Command, LogFormat, StartArgs};
use pgsteer::complaint::{complain, complain_of_all};
use pgsteer::run::Outputs;
use pgsteer_core::config::Config;
use pgsteer_core::config::error::ConfigErrors;
use pgsteer_core::config::summary::{AgentSummary, Summary};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// What those hear who still name the path of pg_isready.
const NO_PG_ISREADY: &str = "pg_isready is not run any more: pgsteer asks PgBouncer by itself, \
                             so -x (PGISREADY_PATH) may be left out";

/// How long the end of the process waits for the rest of its log to be written.
const LOG_FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Lines of the log that may wait for stderr.
const LOG_LINES_MAX: usize = 10_000;

fn main() -> ExitCode {
    match cli::typed(std::env::args_os()).unwrap_or_else(|error| error.exit()).command {
        Command::Run(args) => run(Outputs::All, args.start, None, move || cli::load(&args)),
        Command::Agent(args) => {
            let hint = args.pgisready_path.as_ref().map(|_| NO_PG_ISREADY);
            run(Outputs::AnswersOnly, args.start, hint, move || cli::load_agent(&args))
        }
        Command::Check(args) => {
            let of_haproxy = |arguments: &Vec<String>| {
                Question::of_haproxy(arguments, |name| std::env::var(name).ok())
            };
            let asked = args.external.as_ref().and_then(of_haproxy);
            let question = asked.unwrap_or(Question { of: vec![args.of], member: args.member });
            pgsteer::check::run(&args.http, &question, args.timeout)
        }
        Command::Lint(args) => pgsteer::lint::run(&args),
        Command::Render(args) => pgsteer::render::run(&args),
        Command::Status(args) => pgsteer::status::run(&args.http, args.json, args.watch),
    }
}

fn run(
    outputs: Outputs,
    start: StartArgs,
    hint: Option<&str>,
    load: impl Fn() -> Result<Config, ConfigErrors>,
) -> ExitCode {
    let config = match load() {
        Ok(config) => config,
        Err(errors) => {
            complain_of_all(&errors, errors.len(), "started");
            return ExitCode::from(cli::EXIT_WRONG_CONFIG);
        }
    };
    if let Err(error) = pgsteer::run::check_files(&config) {
        complain(&error, "started");
        return ExitCode::from(cli::EXIT_WRONG_CONFIG);
    }
    if start.check_config {
        // A reader that has gone away is no reason to fail.
        let _ = match outputs {
            Outputs::All => writeln!(io::stdout(), "{}", Summary(&config)),
            Outputs::AnswersOnly => writeln!(io::stdout(), "{}", AgentSummary(&config)),
        };
        return ExitCode::SUCCESS;
    }
    let _log = start_log(start.log_format);
    if let Some(hint) = hint {
        tracing::info!("{hint}");
    }
    match pgsteer::run::run(config, outputs, move || Ok(load()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(cli::EXIT_FAILED)
        }
    }
}

/// The log goes to stderr, from `info` on unless `RUST_LOG` says otherwise. A thread of its own
/// writes it, so that whoever should read it and does not holds nobody up; what is too much by then
/// is lost.
fn start_log(format: LogFormat) -> Log {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (stderr, guard) = NonBlockingBuilder::default()
        .thread_name("pgsteer-log")
        .buffered_lines_limit(LOG_LINES_MAX)
        .finish(io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_writer(stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Log(Some(guard))
}

/// Writes the rest of the log when it is dropped, if that does not take too long: whoever does not
/// read it shall not keep the process from ending either.
struct Log(Option<WorkerGuard>);

impl Drop for Log {
    fn drop(&mut self) {
        let (done, is_done) = mpsc::channel();
        let guard = self.0.take();
        let flush = move || {
            drop(guard);
            // Nobody listens any more if it took too long.
            let _ = done.send(());
        };
        if std::thread::Builder::new().spawn(flush).is_ok() {
            let _ = is_done.recv_timeout(LOG_FLUSH_LIMIT);
        }
    }
}
