//! `pgsteer-lab up`: starts a lab and keeps it until it is told to stop.

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use pgsteer_lab::{ACTS_HELP, Lab, LabOptions, Network, PatroniVersion};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::channel;

#[derive(Debug, Args)]
pub struct Up {
    /// Which Patroni: debian (the package) or pip (a newer one).
    #[arg(long, default_value = "pip")]
    patroni: PatroniVersion,
    /// Where members live: loopback, or namespaces (needs root).
    #[arg(long, default_value = "loopback")]
    network: Network,
    /// How many members, 1 to 7.
    #[arg(long, default_value_t = 3)]
    members: usize,
}

impl Up {
    pub fn run(self) -> Result<()> {
        // Ctrl-C while the lab is starting ends the process at once, and the guardian removes the rest.
        let lab = Arc::new(Lab::start(LabOptions {
            patroni: self.patroni,
            network: self.network,
            members: self.members,
            ..LabOptions::default()
        })?);
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
        channel::serve(&lab)?;
        println!("{}", lab.directory()?);
        println!("From another terminal: pgsteer-lab act ACT\n{ACTS_HELP}");
        println!("Ctrl-C ends and removes everything.");
        signals.forever().next();
        drop(lab);
        Ok(())
    }
}
