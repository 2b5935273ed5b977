//! The writer: opens one connection after the other and inserts a row with each, until it is
//! stopped.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::stage::Stage;
use super::terminal::{psql, stderr_of};

/// The start of psql's output if the connection failed.
const NOT_CONNECTED: &str = "psql: error: connection to server";

const INSERT: &str = "INSERT INTO story (line) VALUES ('written by the writer')";

/// A running writer.
pub struct Writer {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<WriterReport>>,
}

/// What a writer observed.
#[derive(Debug, Default)]
pub struct WriterReport {
    pub connections: usize,
    /// The error messages of the connections that failed.
    pub failed: Vec<String>,
    /// The error messages of connections that succeeded, but whose statement was in progress when
    /// the old primary shut down. Only the client can repeat such a statement.
    pub cut_off: Vec<String>,
    /// The longest that one connection took, its row included.
    pub longest: Duration,
    successes: Vec<Instant>,
}

impl Writer {
    pub fn start(stage: &Stage<'_>) -> Result<Writer> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut command = psql(stage, stage.write_port());
        // The host is named twice. A SCRAM login that the shutdown breaks off cannot continue at
        // another member; libpq then tries the next host by itself.
        let port = stage.write_port();
        command.args(["-h", "127.0.0.1,127.0.0.1", "-p", &format!("{port},{port}"), "-c", INSERT]);
        let stop = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write(&mut command, &stop))
            .context("cannot start the writer")?;
        Ok(Writer { ended, thread })
    }

    pub fn stop(self) -> Result<WriterReport> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the writer panicked"))?
    }
}

impl WriterReport {
    /// The number of rows that were written for certain.
    pub fn written(&self) -> usize {
        self.successes.len()
    }

    /// The time from `moment` to the end of the first successful write after it.
    pub fn first_success_after(&self, moment: Instant) -> Option<Duration> {
        let first = self.successes.iter().find(|at| **at >= moment)?;
        Some(first.duration_since(moment))
    }
}

fn write(command: &mut Command, ended: &AtomicBool) -> Result<WriterReport> {
    let mut report = WriterReport::default();
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        let output = command.output().context("cannot run psql")?;
        report.connections += 1;
        match stderr_of(&output) {
            _ if output.status.success() => report.successes.push(Instant::now()),
            words if words.starts_with(NOT_CONNECTED) => report.failed.push(words),
            words => report.cut_off.push(words),
        }
        report.longest = report.longest.max(began.elapsed());
    }
    Ok(report)
}
