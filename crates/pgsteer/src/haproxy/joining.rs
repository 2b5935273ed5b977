//! Servers that are added for members without one, and removed when those have left: `add server` and
//! `del server` of the Runtime API (management guide, section 9.3; stable since HAProxy 2.6).
//!
//! Only servers that this process has added are removed. HAProxy forgets them when it is reloaded, and they
//! are added again then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::time::Moment;

use super::answer::{Admin, Server};
use super::command::{Command, ServerKey, has_word};
use super::order::{Target, server_of};

/// The pause after a refusal, which usually lasts until HAProxy's or pgsteer's configuration has changed.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// The servers that were added to one process of HAProxy.
#[derive(Debug, Default)]
pub struct Joining {
    /// What follows the address of a new server; none if none is added.
    keywords: Option<Arc<str>>,
    added: BTreeSet<ServerKey>,
    /// Those that were put in maintenance here, and not by a person.
    maintained: BTreeSet<ServerKey>,
    refusal: Option<Refusal>,
}

/// HAProxy's refusal to add a server.
#[derive(Debug)]
struct Refusal {
    text: String,
    /// When the next server is tried.
    again_at: Moment,
}

impl Joining {
    /// Adds servers with these keywords; none if there are none.
    pub fn new(keywords: Option<&str>) -> Joining {
        Joining { keywords: keywords.map(Arc::from), ..Joining::default() }
    }

    /// What to do about a missing server, by its name; none if it is about to be added.
    pub fn remedy(&self, server: &str) -> Option<String> {
        match (&self.keywords, &self.refusal) {
            (None, _) => {
                Some(format!("add `server {server} ...`, or set add_servers in [haproxy]"))
            }
            (Some(_), Some(refusal)) => {
                Some(format!("HAProxy refuses to add it: {}", refusal.text))
            }
            (Some(_), None) => None,
        }
    }

    /// Notes that another process of HAProxy runs, which has only the servers of its configuration.
    pub fn note_new_process(&mut self) {
        self.added.clear();
        self.maintained.clear();
        self.refusal = None;
    }

    /// Notes the result of a command: whether HAProxy reports that it has added or deleted a server, and its
    /// refusal, if it is one.
    pub fn note_result(
        &mut self,
        command: &Command,
        is_done: bool,
        refusal: Option<String>,
        now: Moment,
    ) {
        match command {
            Command::Add { server, .. } => {
                self.refusal = refusal.map(|text| Refusal { text, again_at: now + REFUSED_PAUSE });
                // A server that exists already is another program's.
                if is_done {
                    self.added.insert(server.clone());
                }
            }
            Command::Maintain(server) => drop(self.maintained.insert(server.clone())),
            Command::Ready(server) => drop(self.maintained.remove(server)),
            Command::Remove { server, .. } if is_done => {
                self.added.remove(server);
                self.maintained.remove(server);
            }
            _ => {}
        }
    }

    /// Returns the commands for one backend with these `servers`, whose service has these `targets`.
    pub fn commands(
        &self,
        backend: &str,
        servers: &[Server],
        targets: &[&Target],
        now: Moment,
    ) -> Vec<Command> {
        let Some(keywords) = self.keywords.clone() else { return Vec::new() };
        let key = |name: &str| ServerKey { backend: backend.to_owned(), server: name.to_owned() };
        let mut commands = Vec::new();
        for server in servers {
            let server_key = key(&server.name);
            if !self.added.contains(&server_key) {
                continue;
            }
            let is_of = |target: &&&Target| target.label == server.name;
            let is_needed = targets
                .iter()
                .find(is_of)
                .is_some_and(|target| !target.has_left && target.is_at(server));
            commands.extend(match (is_needed, server.admin) {
                (true, Admin::Maint) if self.maintained.contains(&server_key) => {
                    Some(Command::Ready(server_key))
                }
                (true, _) => None,
                (false, Admin::Maint) if server.sessions == 0 => {
                    let has_agent = has_word(&keywords, "agent-check");
                    Some(Command::Remove { server: server_key, has_agent })
                }
                (false, Admin::Maint) => None,
                (false, _) => Some(Command::Maintain(server_key)),
            });
        }
        if self.refusal.as_ref().is_some_and(|refusal| now < refusal.again_at) {
            return commands;
        }
        for target in
            targets.iter().filter(|it| !it.has_left && server_of(it, targets, servers).is_none())
        {
            let Some(address) = target.address() else { continue };
            let (server, keywords) = (key(&target.label), Arc::clone(&keywords));
            commands.push(Command::Add { server, address, keywords });
        }
        commands
    }
}
