//! `pgsteer-bench failover`: what a client sees of a failover, door by door.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use pgsteer_bench::{failover, write_section};

#[derive(Debug, Args)]
pub struct Failover {
    /// How many switchovers, before one each of crash, freeze and partition [default: 5, or 1]
    #[arg(long)]
    switchovers: Option<usize>,
    /// Milliseconds between two new connections at one door; 20, or 40 on less than four cores,
    /// where PostgreSQL cannot start as many sessions as four doors want every 20.
    #[arg(long)]
    every: Option<u64>,
    /// Switchovers only, a short look at rest, and nothing written.
    #[arg(long)]
    quick: bool,
    /// Whose section bench-failover is written.
    #[arg(long, default_value = "docs/BENCHMARKS.md")]
    out: PathBuf,
}

impl Failover {
    pub fn run(self) -> Result<()> {
        let every = self.every.map_or_else(failover::affordable_step, Duration::from_millis);
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
