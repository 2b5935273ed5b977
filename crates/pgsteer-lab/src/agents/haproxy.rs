//! A HAProxy whose beliefs can be read.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::belief::{Beliefs, Watch};
use crate::lab::Lab;
use crate::spawned::Spawned;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A running HAProxy. Dropping it kills it.
#[derive(Debug)]
pub struct Haproxy {
    process: Spawned,
    socket: SocketAddr,
}

impl Haproxy {
    /// Starts one with these sections behind `global` and `defaults`, and waits for its first word.
    pub fn start(lab: &Lab, name: &str, sections: &str) -> Result<Self> {
        let socket = free_address()?;
        let text = format!(
            "global\n    maxconn 1000\n    stats socket ipv4@{socket} level user\n\n\
             defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1m\n    \
             timeout server 1m\n    timeout check 1s\n\n{sections}"
        );
        let haproxy = Self { process: lab.haproxy(name, &text)?, socket };
        let deadline = Instant::now() + START_LIMIT;
        while haproxy.beliefs().is_err() {
            if Instant::now() > deadline {
                bail!("HAProxy does not answer:\n{}", haproxy.process.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(haproxy)
    }

    pub fn beliefs(&self) -> Result<Beliefs> {
        Beliefs::ask(self.socket)
    }

    pub fn watch(&self) -> Result<Watch> {
        Watch::start(self.socket)
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.local_addr().context("no free port")
}
