//! `pgsteer-bench vip`: an address that follows the primary, beside vip-manager.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pgsteer_bench::{vip, write_section};

#[derive(Debug, Args)]
pub struct Vip {
    /// Two switchovers, and no file written.
    #[arg(long)]
    quick: bool,
    /// Switchovers
    #[arg(long, default_value_t = 15)]
    switchovers: usize,
    /// The file whose section bench-vip is written.
    #[arg(long, default_value = "docs/VIP.md")]
    out: PathBuf,
}

impl Vip {
    pub fn run(self) -> Result<()> {
        let switchovers = if self.quick { 2 } else { self.switchovers };
        let section = vip::run(&vip::Plan { switchovers })?;
        println!("\n{section}");
        if !self.quick {
            write_section(&self.out, "bench-vip", &section)?;
            println!("written to {}", self.out.display());
        }
        Ok(())
    }
}
