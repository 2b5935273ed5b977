//! `pgsteer-bench proxy`: the cost of a transaction in the proxy, pgsteer and HAProxy in turn.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pgsteer_bench::{proxy, write_section};

#[derive(Debug, Args)]
pub struct Proxy {
    /// The number of pairs of runs for the main figure.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// The seconds of each run of a pair.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Two short pairs, no other shapes, and no file written.
    #[arg(long)]
    quick: bool,
    /// The file whose section bench-proxy is written.
    #[arg(long, default_value = "docs/BENCHMARKS.md")]
    out: PathBuf,
}

impl Proxy {
    pub fn run(self) -> Result<()> {
        let plan = match self.quick {
            true => proxy::Plan::quick(),
            false => proxy::Plan::whole(self.pairs, self.seconds),
        };
        let section = proxy::run(&plan)?;
        println!("\n{section}");
        if !self.quick {
            write_section(&self.out, "bench-proxy", &section)?;
            println!("written to {}", self.out.display());
        }
        Ok(())
    }
}
