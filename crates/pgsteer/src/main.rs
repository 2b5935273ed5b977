//! The program `pgsteer`: from the command line to what it asks for, and the exit code.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use pgsteer::cli::{self, Cli, Command, LogFormat, RunArgs};
use pgsteer_core::config::summary::Summary;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Status(args) => pgsteer::status::run(&args.http, args.json, args.watch),
    }
}

fn run(args: RunArgs) -> ExitCode {
    let config = match cli::load(&args) {
        Ok(config) => config,
        Err(errors) => {
            cli::complain(&errors, errors.len());
            return ExitCode::from(cli::EXIT_WRONG_CONFIG);
        }
    };
    if let Err(error) = pgsteer::run::check_files(&config) {
        cli::complain(&format_args!("{error:#}"), 1);
        return ExitCode::from(cli::EXIT_WRONG_CONFIG);
    }
    if args.check_config {
        // A reader that has gone away is no reason to fail.
        let _ = writeln!(io::stdout(), "{}", Summary(&config));
        return ExitCode::SUCCESS;
    }
    start_log(args.log_format);
    match pgsteer::run::run(config, move || Ok(cli::load(&args)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(cli::EXIT_FAILED)
        }
    }
}

/// The log goes to stderr, from `info` on unless `RUST_LOG` says otherwise.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
