//! `pgsteer-bench agent`: the agent beside the programs that it replaces.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pgsteer_bench::{agent, write_section};

#[derive(Debug, Args)]
pub struct Agent {
    /// One fault, short measurements of the rest, and no file written.
    #[arg(long)]
    quick: bool,
    /// No faults, and no file written.
    #[arg(long, conflicts_with = "quick")]
    answers: bool,
    /// The file whose section bench-agent is written.
    #[arg(long, default_value = "docs/AGENT.md")]
    out: PathBuf,
}

impl Agent {
    pub fn run(self) -> Result<()> {
        let plan = match (self.quick, self.answers) {
            (true, _) => agent::Plan::quick(),
            (_, true) => agent::Plan::answers(),
            _ => agent::Plan::whole(),
        };
        let section = agent::run(plan)?;
        println!("\n{section}");
        if !self.quick && !self.answers {
            write_section(&self.out, "bench-agent", &section)?;
            println!("written to {}", self.out.display());
        }
        Ok(())
    }
}
