//! A HAProxy whose server states can be read.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::server_states::{ServerStates, StateWatch};
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
    /// Starts a HAProxy with these sections after `global` and `defaults`, and waits until its
    /// socket answers.
    pub fn start(lab: &Lab, name: &str, sections: &str) -> Result<Self> {
        let socket = free_address()?;
        let text = format!(
            "global\n    maxconn 1000\n    stats socket ipv4@{socket} level admin\n\n\
             defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1m\n    \
             timeout server 1m\n    timeout check 1s\n\n{sections}"
        );
        let haproxy = Self { process: lab.haproxy(name, &text)?, socket };
        let deadline = Instant::now() + START_LIMIT;
        while haproxy.server_states().is_err() {
            if Instant::now() > deadline {
                bail!("HAProxy does not answer:\n{}", haproxy.process.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(haproxy)
    }

    /// The address of its Runtime API.
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    pub fn server_states(&self) -> Result<ServerStates> {
        ServerStates::ask(self.socket)
    }

    pub fn watch(&self) -> Result<StateWatch> {
        StateWatch::start(self.socket)
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// An address of this machine without a listener.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.local_addr().context("no free port")
}
