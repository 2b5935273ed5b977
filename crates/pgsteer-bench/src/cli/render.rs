//! `pgsteer-bench render`: profile `sql` beside the check that it replaces.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pgsteer_bench::{render, write_section};

#[derive(Debug, Args)]
pub struct Render {
    /// One start, one switchover, and no file written.
    #[arg(long)]
    quick: bool,
    /// The file whose section bench-render is written.
    #[arg(long, default_value = "docs/RENDER.md")]
    out: PathBuf,
}

impl Render {
    pub fn run(self) -> Result<()> {
        let plan = if self.quick { render::Plan::quick() } else { render::Plan::whole() };
        let section = render::run(&plan)?;
        println!("\n{section}");
        if !self.quick {
            write_section(&self.out, "bench-render", &section)?;
            println!("written to {}", self.out.display());
        }
        Ok(())
    }
}
