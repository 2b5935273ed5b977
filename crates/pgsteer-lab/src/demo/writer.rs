//! The writer: one connection after the other, a row with each, for as long as it is let.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::stage::Stage;
use super::terminal::{complaint, psql};

/// How psql begins when it was not let in at all.
const NOT_CONNECTED: &str = "psql: error: connection to server";

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
    /// What the connections said that were not let in.
    pub failed: Vec<String>,
    /// What the ones said that were let in, and whose statement was under way when the old
    /// primary shut down. Nobody can repeat such a statement but whoever sent it.
    pub cut_off: Vec<String>,
    /// The longest that one connection took, its row included.
    pub longest: Duration,
    successes: Vec<Instant>,
}

impl Writer {
    pub fn start(stage: &Stage<'_>) -> Result<Writer> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut command = psql(stage, stage.write_port());
        // Named twice, as two doors would be. A login by SCRAM that the shutdown breaks off in
        // the middle cannot go on elsewhere; libpq then goes on to the next host by itself.
        let port = stage.write_port();
        command.args(["-h", "127.0.0.1,127.0.0.1", "-p", &format!("{port},{port}"), "-c", INSERT]);
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
    /// How many rows were written for certain.
    pub fn written(&self) -> usize {
        self.successes.len()
    }

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
        match complaint(&output) {
            _ if output.status.success() => tale.successes.push(Instant::now()),
            words if words.starts_with(NOT_CONNECTED) => tale.failed.push(words),
            words => tale.cut_off.push(words),
        }
        tale.longest = tale.longest.max(began.elapsed());
    }
    Ok(tale)
}
