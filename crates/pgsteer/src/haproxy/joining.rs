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
use super::machine::server_of;
use super::order::Target;

/// The pause after a refusal, which usually lasts until HAProxy's or pgsteer's configuration has changed.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// The servers that were added to one process of HAProxy.
#[derive(Debug, Default)]
pub struct Joining {
    /// What follows the address of a new server; none if none is added.
    keywords: Option<Arc<str>>,
    added: BTreeSet<ServerKey>,
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
        self.refusal = None;
    }

    /// Notes the result of a command: HAProxy's refusal, if it is one.
    pub fn note_result(&mut self, refusal: Option<String>, now: Moment) {
        self.refusal = refusal.map(|text| Refusal { text, again_at: now + REFUSED_PAUSE });
    }

    /// Returns the commands for one backend with these `servers`, whose service has these `targets`.
    pub fn commands(
        &mut self,
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
                (true, Admin::Maint) => Some(Command::Ready(server_key)),
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
        for target in targets.iter().filter(|it| !it.has_left && server_of(it, servers).is_none()) {
            let Some(address) = target.address() else { continue };
            let server = key(&target.label);
            self.added.insert(server.clone());
            commands.push(Command::Add { server, address, keywords: Arc::clone(&keywords) });
        }
        commands
    }
}
