//! `pgsteer-bench`: runs a benchmark on a cluster of its own and writes its tables to docs/.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks of pgsteer beside its peers, on a real PostgreSQL cluster on this machine.
#[derive(Debug, Parser)]
#[command(name = "pgsteer-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a client sees of a failover: pgsteer, HAProxy twice, and libpq side by side.
    Failover(cli::failover::Failover),
    /// CPU per transaction in the proxy: pgsteer and HAProxy in turn.
    Proxy(cli::proxy::Proxy),
    /// What HAProxy learns from the agent during faults, and the time and cost of an answer.
    Agent(cli::agent::Agent),
    /// How soon HAProxy finds a standby and a new primary: profile sql beside the check it replaces.
    Render(cli::render::Render),
    /// What sessions and new clients see of an upgrade, beside HAProxy's reload.
    Upgrade(cli::upgrade::Upgrade),
    /// When clients can write again by an address that follows the primary, beside vip-manager.
    Vip(cli::vip::Vip),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Failover(bench) => bench.run(),
        Command::Proxy(bench) => bench.run(),
        Command::Agent(bench) => bench.run(),
        Command::Render(bench) => bench.run(),
        Command::Upgrade(bench) => bench.run(),
        Command::Vip(bench) => bench.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgsteer-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
