//! `pgsteer-bench failover`: what a client sees of a failover, on four paths to the primary.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use pgsteer_bench::{failover, write_section};

#[derive(Debug, Args)]
pub struct Failover {
    /// The number of switchovers, before one crash, one freeze and one partition [default: 5, or 1]
    #[arg(long)]
    switchovers: Option<usize>,
    /// Milliseconds between two new connections on one path [default: 20, or as few as the machine can
    /// bear]
    #[arg(long)]
    every: Option<u64>,
    /// Switchovers only, a short measurement at rest, and no file written.
    #[arg(long)]
    quick: bool,
    /// The file whose section bench-failover is written.
    #[arg(long, default_value = "docs/BENCHMARKS.md")]
    out: PathBuf,
}

impl Failover {
    pub fn run(self) -> Result<()> {
        let every = self.every.map(Duration::from_millis);
        let plan = match self.quick {
            true => failover::Plan::quick(self.switchovers.unwrap_or(1), every),
            false => failover::Plan::whole(self.switchovers.unwrap_or(5), every),
        };
        let section = failover::run(&plan)?;
        println!("\n{section}");
        if !self.quick {
            write_section(&self.out, "bench-failover", &section)?;
            println!("written to {}", self.out.display());
        }
        Ok(())
    }
}
