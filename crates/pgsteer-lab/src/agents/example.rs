//! The example configurations of docs/haproxy, unchanged except for the addresses of a lab.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use super::agent_processes::AgentAddresses;
use super::haproxy::free_address;
use crate::lab::Lab;
use crate::member::Member;

/// The members' addresses in the examples, without the last digit, which is the member's number.
const NODE: &str = "10.132.200.20";
/// The address of HAProxy in the examples. A pgsteer runs on the same machine.
const FRONT: &str = "10.132.200.200";

/// Shorter intervals: with the intervals of the examples a test would take minutes.
const QUICKER: [(&str, &str); 4] = [
    ("inter 3s fastinter 1s fall 3 rise 4", "inter 300ms fall 1 rise 1"),
    ("inter 1s fall 2 rise 2", "inter 300ms fall 1 rise 1"),
    ("agent-inter 5s", "agent-inter 300ms"),
    ("agent-inter 1s", "agent-inter 300ms"),
];

/// An example, ready to run.
#[derive(Debug)]
pub struct Example {
    pub text: String,
    /// The address for clients that write.
    pub write: SocketAddr,
    /// The address for clients that read, if the example has one.
    pub read: SocketAddr,
}

impl Example {
    /// `text` with the lab's addresses. `addresses` returns the addresses of a member's agent,
    /// `front` has the addresses of the agent beside HAProxy.
    pub fn of(
        text: &str,
        lab: &Lab,
        addresses: impl Fn(&Member) -> AgentAddresses,
        front: Option<AgentAddresses>,
    ) -> Result<Self> {
        let (write, read) = (free_address()?, free_address()?);
        let uncommented = text.lines().filter(|line| !line.starts_with('#'));
        let mut text = uncommented.collect::<Vec<_>>().join("\n") + "\n";
        let mut put = |theirs: String, ours: String| text = text.replace(&theirs, &ours);
        for here in [format!("{NODE}1"), FRONT.to_owned()] {
            put(format!("{here}:5000"), write.to_string());
            put(format!("{here}:5001"), read.to_string());
        }
        for (number, member) in (1..).zip(lab.members()) {
            let AgentAddresses { agent, pages } = addresses(member);
            let node = format!("{NODE}{number}");
            put(format!("{node}:5432"), member.postgres_addr().to_string());
            put(format!("{node}:6432"), member.pgbouncer_addr().to_string());
            put(format!("{node}:5555"), agent.to_string());
            put(format!("agent-addr {node} agent-port 5555"), at_agent(agent));
            // A server that is checked at its own address names only the port.
            put("check port 7000".to_owned(), format!("check port {}", pages.port()));
            put("agent-port 5555 inter".to_owned(), format!("agent-port {} inter", agent.port()));
            put("port 8008".to_owned(), format!("port {}", member.patroni_port));
        }
        if let Some(front) = front {
            put(format!("agent-addr {FRONT} agent-port 5555"), at_agent(front.agent));
            let pages = format!("check addr {} port {}", front.pages.ip(), front.pages.port());
            put(format!("check addr {FRONT} port 7000"), pages);
        }
        ensure!(!text.contains("10.132."), "an address of the example is left over:\n{text}");
        Ok(Self { text, write, read })
    }

    /// The same example with intervals that suit a test.
    pub fn quicker(self) -> Self {
        self.renamed(&QUICKER)
    }

    /// The same example with other names, so that several examples fit into one HAProxy.
    pub fn renamed(mut self, names: &[(&str, &str)]) -> Self {
        for (theirs, ours) in names {
            self.text = self.text.replace(theirs, ours);
        }
        self
    }
}

fn at_agent(agent: SocketAddr) -> String {
    format!("agent-addr {} agent-port {}", agent.ip(), agent.port())
}
