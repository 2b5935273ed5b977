//! The writer: one connection after the other, a row with each, for as long as it is let.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::stage::Stage;
use super::terminal::{complaint, psql};

const INSERT: &str = "INSERT INTO story (line) VALUES ('written by the writer')";

/// A writer at work.
pub struct Writer {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tale>>,
}

/// What a writer has to tell.
#[derive(Debug, Default)]
pub struct Tale {
    pub connections: usize,
    /// What the connections that failed said.
    pub failed: Vec<String>,
    /// The longest that one connection took, its row included.
    pub longest: Duration,
    successes: Vec<Instant>,
}

impl Writer {
    pub fn start(stage: &Stage<'_>) -> Result<Writer> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut command = psql(stage, stage.write_port());
        command.args(["-c", INSERT]);
        let told_to_end = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write(&mut command, &told_to_end))
            .context("cannot start the writer")?;
        Ok(Writer { ended, thread })
    }

    pub fn stop(self) -> Result<Tale> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the writer panicked"))?
    }
}

impl Tale {
    /// How long after `moment` the first write came through that ended after it.
    pub fn first_success_after(&self, moment: Instant) -> Option<Duration> {
        let first = self.successes.iter().find(|at| **at >= moment)?;
        Some(first.duration_since(moment))
    }
}

fn write(command: &mut Command, ended: &AtomicBool) -> Result<Tale> {
    let mut tale = Tale::default();
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        let output = command.output().context("cannot run psql")?;
        tale.connections += 1;
        match output.status.success() {
            true => tale.successes.push(Instant::now()),
            false => tale.failed.push(complaint(&output)),
        }
        tale.longest = tale.longest.max(began.elapsed());
    }
    Ok(tale)
}
