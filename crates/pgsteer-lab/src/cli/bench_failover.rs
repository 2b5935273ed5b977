//! `pgsteer-lab bench-failover`: what a client sees of a failover, door by door.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use pgsteer_lab::bench::{failover, write_section};

#[derive(Debug, Args)]
pub struct BenchFailover {
    /// How many switchovers, before one each of crash, freeze and partition.
    #[arg(long, default_value_t = 5)]
    switchovers: usize,
    /// Milliseconds between two new connections at one door. With less than 20 or on a busy machine
    /// the cluster itself cannot keep up.
    #[arg(long, default_value_t = 20)]
    every: u64,
    /// One switchover, a short look at rest, and nothing written.
    #[arg(long)]
    quick: bool,
    /// Whose section bench-failover is written.
    #[arg(long, default_value = "docs/BENCHMARKS.md")]
    out: PathBuf,
}

impl BenchFailover {
    pub fn run(self) -> Result<()> {
        let every = Duration::from_millis(self.every);
        let plan = match self.quick {
            true => failover::Plan::quick(every),
            false => failover::Plan::whole(self.switchovers, every),
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
