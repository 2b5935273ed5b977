//! The program `pgsteer`: parses the command line, runs the command, and returns the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use pgsteer::check::Question;
use pgsteer::cli::{self, Command, LogFormat, StartArgs, VipCommand};
use pgsteer::control::commands;
use pgsteer::diagnostic::{report, report_all};
use pgsteer::log::{self, Shape};
use pgsteer::run::Outputs;
use pgsteer_config::error::ConfigErrors;
use pgsteer_config::summary::{AgentSummary, Summary};
use pgsteer_core::settings::Config;

/// The message for users who still pass the path of pg_isready.
const NO_PG_ISREADY: &str = "pg_isready is not used any more: pgsteer checks PgBouncer without \
                             it, so remove -x (PGISREADY_PATH)";

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
            if args.name.is_some() && args.of != "vip" {
                let text =
                    "a second argument is valid after `vip` only, as in pgsteer check vip write";
                return report_flags(text);
            }
            let usual = Question { of: vec![args.of], vip: args.name, member: args.member };
            let question = asked.unwrap_or(usual);
            pgsteer::check::run(&args.http, &args.ask.credentials(), &question, args.timeout)
        }
        Command::Lint(args) => pgsteer::lint::run(&args),
        Command::Render(args) => pgsteer::render::run(&args),
        Command::Status(args) => {
            let (urls, json, watch) = (args.all_urls(), args.json, args.watch);
            pgsteer::status::run(&urls, &args.ask.credentials(), json, watch)
        }
        Command::Drain(args) => commands::drain(&args),
        Command::Undrain(args) => commands::undrain(&args),
        Command::Sessions(args) => commands::sessions(&args),
        Command::EndSessions(args) => commands::end_sessions(&args),
        Command::Explain(args) => commands::explain(&args),
        Command::Upgrade(args) => commands::upgrade(&args),
        Command::Vip(args) => {
            let VipCommand::Release { config: _ } = args.command;
            pgsteer::vip::release::run()
        }
        Command::Top(args) => pgsteer::top::run(args),
    }
}

/// Reports a wrong flag.
fn report_flags(text: &str) -> ExitCode {
    report(&anyhow::anyhow!("{text}"), "asked");
    ExitCode::from(cli::EXIT_WRONG_CONFIG)
}

/// The note of `--check-config` that it tries no connection.
const NOT_TRIED: &str = "the configuration is valid; no connection was tried";

fn run(
    outputs: Outputs,
    start: StartArgs,
    hint: Option<&str>,
    load: impl Fn() -> Result<Config, ConfigErrors>,
) -> ExitCode {
    let config = match load() {
        Ok(config) => config,
        Err(errors) => {
            report_all(&errors, errors.len(), "started");
            return ExitCode::from(cli::EXIT_WRONG_CONFIG);
        }
    };
    if let Err(error) = pgsteer::run::check_files(&config) {
        report(&error, "started");
        return ExitCode::from(cli::EXIT_WRONG_CONFIG);
    }
    if start.check_config {
        // A closed stdout is not an error.
        let _ = match outputs {
            Outputs::All => writeln!(io::stdout(), "{}\n{NOT_TRIED}", Summary(&config)),
            Outputs::AnswersOnly => {
                writeln!(io::stdout(), "{}\n{NOT_TRIED}", AgentSummary(&config))
            }
        };
        return ExitCode::SUCCESS;
    }
    let _log = log::start(match start.log_format {
        LogFormat::Text => Shape::text(),
        LogFormat::Json => Shape::Json,
    });
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
