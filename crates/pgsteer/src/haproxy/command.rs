//! The commands that pgsteer sends. They set the weight, the result of the health check, and end sessions;
//! none sets the administrative state, which belongs to people.

use std::fmt;

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
        }
    }
}

/// Returns the commands as one line, which HAProxy executes in its order.
pub fn line(commands: &[Command]) -> String {
    let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
    commands.join(";")
}
