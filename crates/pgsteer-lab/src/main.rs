//! `pgsteer-lab`: starts a cluster from the command line and performs acts on it.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A real PostgreSQL cluster under Patroni, on this machine, to break on purpose.
#[derive(Debug, Parser)]
#[command(name = "pgsteer-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster and keep it until Ctrl-C.
    Up(cli::up::Up),
    /// Run a demo on a real cluster: write, read, switch over under load
    Demo(cli::demo::Demo),
    /// Perform an act on the cluster that is up; without an act, list them
    Act(cli::act::Act),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Up(up) => up.run(),
        Command::Demo(demo) => demo.run(),
        Command::Act(act) => act.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgsteer-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
