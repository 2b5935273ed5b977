//! The commands that pgsteer sends. They set the weight, the result of the health check, and end sessions.
//! The administrative state belongs to people: pgsteer sets only that of servers that it has added itself.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A server in HAProxy: its backend and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKey {
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// New sessions, or none: the configured weight, or 0. Every balancing algorithm accepts these two.
    Weight {
        /// The server.
        server: ServerKey,
        /// The configured weight.
        is_full: bool,
    },
    /// The server is UP at once. Its next failed health checks make it DOWN again.
    HealthUp(ServerKey),
    /// Ends all sessions at the server.
    EndSessions(ServerKey),
    /// A new server, without new sessions, whose health check runs.
    Add {
        /// The server.
        server: ServerKey,
        /// The address of the member.
        address: SocketAddr,
        /// What follows the address.
        keywords: Arc<str>,
    },
    /// Ends the maintenance of a server that pgsteer has added.
    Ready(ServerKey),
    /// No new sessions at a server that pgsteer has added, and no checks.
    Maintain(ServerKey),
    /// Removes a server that pgsteer has added, is in maintenance and has no session.
    Remove {
        /// The server.
        server: ServerKey,
        /// It has an agent-check, which has to be disabled first.
        has_agent: bool,
    },
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Weight { server, is_full: true } => {
                write!(f, "set server {server} weight 100%")
            }
            Command::Weight { server, is_full: false } => {
                write!(f, "set server {server} weight 0%")
            }
            Command::HealthUp(server) => write!(f, "set server {server} health up"),
            Command::EndSessions(server) => write!(f, "shutdown sessions server {server}"),
            Command::Add { server, address, keywords } => {
                // The new server is in maintenance until the last of these.
                write!(
                    f,
                    "add server {server} {address} {keywords};set server {server} weight 0%"
                )?;
                if has_word(keywords, "check") {
                    write!(f, ";enable health {server}")?;
                }
                if has_word(keywords, "agent-check") {
                    write!(f, ";enable agent {server}")?;
                }
                write!(f, ";set server {server} state ready")
            }
            Command::Ready(server) => write!(f, "set server {server} state ready"),
            Command::Maintain(server) => write!(f, "set server {server} state maint"),
            Command::Remove { server, has_agent } => {
                if *has_agent {
                    write!(f, "disable agent {server};")?;
                }
                write!(f, "del server {server}")
            }
        }
    }
}

/// Returns true if one of the words of `text` is `word`.
pub fn has_word(text: &str, word: &str) -> bool {
    text.split_ascii_whitespace().any(|it| it == word)
}

/// Returns the commands as one line, which HAProxy executes in its order.
pub fn line(commands: &[Command]) -> String {
    let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
    commands.join(";")
}
