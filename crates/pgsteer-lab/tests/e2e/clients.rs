//! The clients in common use: psql, pgbench, pg_dump, and psycopg in Python.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use pgsteer_lab::{APP, Lab};

use crate::installed::installed;

/// `psql` without the user's own settings, as the application.
pub fn psql(lab: &Lab, door: SocketAddr) -> Command {
    let mut command = program(lab, "psql", door);
    command.args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
    command
}

/// `pgbench` as the application.
pub fn pgbench(lab: &Lab, door: SocketAddr) -> Command {
    program(lab, "pgbench", door)
}

/// `pg_dump` as the application.
pub fn pg_dump(lab: &Lab, door: SocketAddr) -> Command {
    program(lab, "pg_dump", door)
}

fn program(lab: &Lab, name: &str, door: SocketAddr) -> Command {
    let mut command = Command::new(lab.postgres_bin().join(name));
    login(&mut command, door);
    command
}

/// A script of `clients/` in the Python that has psycopg, as the application.
pub fn python(script: &str, door: SocketAddr) -> Result<Command> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients");
    let mut command = Command::new(python_of_venv()?);
    command.arg(folder.join(script));
    login(&mut command, door);
    Ok(command)
}

fn login(command: &mut Command, door: SocketAddr) {
    // The user's own PG* settings must not reach the lab's databases.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .env("PGHOST", door.ip().to_string())
        .env("PGPORT", door.port().to_string())
        .envs([("PGUSER", APP), ("PGPASSWORD", APP), ("PGDATABASE", APP)])
        .envs([("PGCONNECT_TIMEOUT", "60"), ("PGPASSFILE", "/nonexistent")]);
}

/// The Python that has psycopg.
pub fn python_of_venv() -> Result<PathBuf> {
    installed("venv/bin/python")
}

/// Runs the command and returns its stdout; a failure is an error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed:\n{}", words(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a command that must fail and returns its output; success is an error.
pub fn run_failing(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if output.status.success() {
        bail!("{command:?} should have failed:\n{}", words(&output));
    }
    Ok(words(&output))
}

fn words(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).trim().to_owned()
}
