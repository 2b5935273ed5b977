//! The terminal: shows each command and its output.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use super::stage::{Stage, dsn};
use crate::member::APP;

/// A stage as a user of psql sees it.
pub struct Terminal<'a> {
    stage: &'a Stage<'a>,
}

impl<'a> Terminal<'a> {
    pub fn new(stage: &'a Stage<'a>) -> Terminal<'a> {
        Terminal { stage }
    }

    pub fn chapter(&self, title: &str) {
        println!("\n--- {title} ---\n");
    }

    pub fn line(&self, text: &str) {
        println!("{}", text.trim_end());
    }

    /// Runs SQL on the write service and shows it.
    pub fn write(&self, sql: &str) -> Result<()> {
        self.show(self.stage.write_port(), sql)
    }

    /// Runs SQL on the read service and shows it.
    pub fn read(&self, sql: &str) -> Result<()> {
        self.show(self.stage.read_port(), sql)
    }

    /// The one value of a query on the write service.
    pub fn quiet_write(&self, sql: &str) -> Result<String> {
        self.value(self.stage.write_port(), sql)
    }

    /// The one value of a query on the read service.
    pub fn quiet_read(&self, sql: &str) -> Result<String> {
        self.value(self.stage.read_port(), sql)
    }

    /// Shows the output of `pgsteer status`.
    pub fn status(&self) -> Result<()> {
        let url = self.stage.http_url();
        println!("$ {} status --http {url}", self.stage.typed_pgsteer());
        let output = Command::new(self.stage.pgsteer())
            .args(["status", "--http", &url])
            .output()
            .context("cannot run pgsteer status")?;
        self.line(&String::from_utf8_lossy(&output.stdout));
        match output.status.success() {
            true => Ok(()),
            false => bail!("pgsteer status reports a problem: {}", stderr_of(&output)),
        }
    }

    fn show(&self, port: u16, sql: &str) -> Result<()> {
        println!("$ psql {} -c \"{sql}\"", dsn(port));
        let output =
            psql(self.stage, port).args(["-c", sql]).output().context("cannot run psql")?;
        self.line(&String::from_utf8_lossy(&output.stdout));
        succeeded(&output, sql)
    }

    fn value(&self, port: u16, sql: &str) -> Result<String> {
        let output =
            psql(self.stage, port).args(["-Atc", sql]).output().context("cannot run psql")?;
        succeeded(&output, sql)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A psql that connects to a port of pgsteer as the application, and waits 10 seconds at most
/// for its connection.
pub fn psql(stage: &Stage<'_>, port: u16) -> Command {
    let mut command = Command::new(stage.lab().postgres_bin().join("psql"));
    command
        .args(["-X", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", APP, "-d", APP])
        .env("PGPASSWORD", APP)
        .env("PGCONNECT_TIMEOUT", "10");
    command
}

fn succeeded(output: &Output, sql: &str) -> Result<()> {
    match output.status.success() {
        true => Ok(()),
        false => bail!("{sql:?} failed: {}", stderr_of(output)),
    }
}

/// What a program wrote to stderr.
pub fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
