//! `pgsteer-bench upgrade`: what sessions and new clients see of an upgrade, beside HAProxy's reload.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pgsteer_bench::{upgrade, write_section};

#[derive(Debug, Args)]
pub struct Upgrade {
    /// Sessions; fewer if the limit of open files does not permit as many
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Sessions out of these that send queries all the time
    #[arg(long, default_value_t = 1_000)]
    busy: usize,
    /// Upgrades in a row
    #[arg(long, default_value_t = 10)]
    upgrades: usize,
    /// 500 sessions, 50 of them busy, three upgrades, and no file written
    #[arg(long)]
    quick: bool,
    /// The file whose section bench-upgrade is written.
    #[arg(long, default_value = "docs/BENCHMARKS.md")]
    out: PathBuf,
}

impl Upgrade {
    pub fn run(self) -> Result<()> {
        let plan = match self.quick {
            true => upgrade::Plan { sessions: 500, busy: 50, upgrades: 3 },
            false => {
                upgrade::Plan { sessions: self.sessions, busy: self.busy, upgrades: self.upgrades }
            }
        };
        let section = upgrade::run(&plan)?;
        println!("\n{section}");
        if !self.quick {
            write_section(&self.out, "bench-upgrade", &section)?;
            println!("written to {}", self.out.display());
        }
        Ok(())
    }
}
