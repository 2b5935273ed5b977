//! A pgsteer that pushes its gates to a HAProxy by the Runtime API.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::haproxy::free_address;
use crate::lab::Lab;
use crate::member::CHECK;
use crate::spawned::Spawned;

/// The backend that it steers. The section with this name must have a server for each member.
pub const PUSHED_BACKEND: &str = "pushed";

/// The process. Dropping this value kills it.
#[derive(Debug)]
pub struct Pusher(Spawned);

impl Pusher {
    /// Starts `pgsteer agent`, which watches PostgreSQL, Patroni and PgBouncer of each member, and steers
    /// the HAProxy at `socket`. `timeout` is in seconds: after that time without an answer a server counts
    /// as hung.
    pub fn start(lab: &Lab, binary: &Path, socket: SocketAddr, timeout: f64) -> Result<Self> {
        let urls: Vec<String> = lab.patroni_urls().iter().map(|url| format!("'{url}'")).collect();
        let member = lab.members().first().context("the lab has no member")?;
        let text = format!(
            "[patroni]\nurls = [{}]\ntimeout_seconds = {timeout}\n\
             [check]\nuser = '{CHECK}'\npassword_file = '{}'\ntimeout_seconds = {timeout}\n\
             [haproxy]\nsockets = ['{socket}']\nbackends = {{ write = '{PUSHED_BACKEND}' }}\n\
             [services.write]\nlisten = '{}'\nrole = 'primary'\npooler_port = {}\n\
             [agent]\nlisten = '{}'\n",
            urls.join(", "),
            lab.check_password_file()?.display(),
            free_address()?,
            member.pgbouncer_port,
            free_address()?,
        );
        let file = lab.folder().join("pusher.toml");
        std::fs::write(&file, text).context("cannot write a configuration of pgsteer")?;
        let mut command = Command::new(binary);
        command.args(["agent", "--log-format", "json", "--config"]).arg(file).env_clear();
        Ok(Self(lab.spawn("pusher", command)?))
    }

    pub fn log(&self) -> String {
        self.0.log()
    }
}
