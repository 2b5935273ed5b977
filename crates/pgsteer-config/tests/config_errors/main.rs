//! Invalid configuration files, each with all errors that pgsteer reports.

#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
mod outputs;
mod services;
mod values;
mod whole_file;

use pgsteer_config::error::ConfigErrors;
use pgsteer_config::file;
use pgsteer_core::settings::Config;

fn read(text: &str) -> Result<Config, ConfigErrors> {
    let (draft, errors) = file::read(text, "pgsteer.toml");
    draft.finish(errors)
}

/// All errors of the file.
fn wrong(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

/// The result for a file with Patroni and this text.
fn read_beside_patroni(text: &str) -> Result<Config, ConfigErrors> {
    read(&format!("[patroni]\nurls = ['http://pg1']\n{text}"))
}

/// All errors of a file with Patroni and this text.
fn wrong_beside_patroni(text: &str) -> String {
    read_beside_patroni(text).unwrap_err().to_string()
}

/// All errors of a file with members, a check login and this text.
fn wrong_beside_members(text: &str) -> String {
    wrong(&format!("check.user = 'pgcheck'\nmembers.a.postgres = 'pg1'\n{text}"))
}
