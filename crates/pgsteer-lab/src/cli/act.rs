//! `pgsteer-lab act`: performs an act in the lab that is up.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use pgsteer_lab::ACTS_HELP;

use super::channel;

#[derive(Debug, Args)]
pub struct Act {
    /// The lab's folder; needed only if more than one lab is up.
    #[arg(long)]
    lab: Option<PathBuf>,
    /// The act and its target, for instance: crash n1
    words: Vec<String>,
}

impl Act {
    pub fn run(self) -> Result<()> {
        if self.words.is_empty() {
            print!("{ACTS_HELP}");
            return Ok(());
        }
        let folder = match self.lab {
            Some(folder) => folder,
            None => only_lab()?,
        };
        println!("{}", channel::ask(&folder, &self.words.join(" "))?);
        Ok(())
    }
}

fn only_lab() -> Result<PathBuf> {
    let mut labs = channel::labs_up();
    match (labs.pop(), labs.len()) {
        (None, _) => bail!("no lab is up; start one with: pgsteer-lab up"),
        (Some(one), 0) => Ok(one),
        (Some(one), _) => bail!(
            "more than one lab is up; choose with --lab, for instance --lab {}",
            one.display()
        ),
    }
}
