//! `pgsteer-lab demo`: a cluster, a pgsteer in front of it, and a switchover under load.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use pgsteer_lab::demo::{self, DemoOptions, Stage};
use pgsteer_lab::{Lab, LabOptions, PatroniVersion};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::channel;

#[derive(Debug, Args)]
pub struct Demo {
    /// End after the demo; the exit code is 0 if every check of the demo passed
    #[arg(long)]
    once: bool,
    /// Give pgsteer no login for its tether: it then relies on Patroni alone
    #[arg(long)]
    without_login: bool,
    /// Which Patroni: debian (the package) or pip (a newer one).
    #[arg(long, default_value = "pip")]
    patroni: PatroniVersion,
    /// The pgsteer to show [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pgsteer: Option<PathBuf>,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        let pgsteer = self.pgsteer.map_or_else(beside_this_program, Ok)?;
        println!("Starting three members, each etcd + Patroni + PostgreSQL + PgBouncer ...");
        let lab =
            Arc::new(Lab::start(LabOptions { patroni: self.patroni, ..LabOptions::default() })?);
        let options = DemoOptions { pgsteer, without_login: self.without_login };
        let stage = Stage::set(&lab, &options)?;
        demo::run(&stage)?;
        if self.once {
            println!("\nEvery check passed. Ending and removing everything.");
            return Ok(());
        }
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
        channel::serve(&lab)?;
        println!("{}", invitation(&stage));
        signals.forever().next();
        Ok(())
    }
}

fn beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find the path of this program")?;
    Ok(this.with_file_name("pgsteer"))
}

fn invitation(stage: &Stage<'_>) -> String {
    let addresses = stage.addresses();
    format!(
        "
--- Now you ---

{addresses}

From another terminal, break it: target/debug/pgsteer-lab act crash n2
All acts: target/debug/pgsteer-lab act

Ctrl-C ends and removes everything."
    )
}
