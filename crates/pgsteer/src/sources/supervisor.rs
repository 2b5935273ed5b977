//! The supervisor: keeps the tasks of the members in the plan, and only theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgsteer_core::claim::Report;
use pgsteer_core::names::MemberName;
use pgsteer_core::plan::{Ask, Plan};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error};

use super::beat::Beat;
use super::http::Client;
use super::tether::{Login, Tether};
use super::{Gone, Hint, Reporter, Task, patroni, resolver};
use crate::clock::Clock;

/// Starts and ends the sources of single members.
pub struct Supervisor {
    /// Asks Patroni; none without Patroni.
    pub http: Option<Arc<Client>>,
    /// The login of the tether; none without one.
    pub login: Option<Arc<Login>>,
    /// Given when a member's Patroni fails.
    pub hint: Hint,
    /// Turns instants into moments.
    pub clock: Clock,
    /// Where the sources report.
    pub reports: mpsc::Sender<Report>,
    /// Whom to ask.
    pub plan: watch::Receiver<Arc<Plan>>,
}

/// The tasks of one member, and the word that they are fed with.
struct Watched {
    ask: watch::Sender<Ask>,
    tasks: Vec<Task>,
}

impl Supervisor {
    /// Follows the plan until it ends.
    pub async fn run(mut self) -> Gone {
        let mut members: BTreeMap<MemberName, Watched> = BTreeMap::new();
        loop {
            let plan = self.plan.borrow_and_update().clone();
            members.retain(|name, watched| {
                plan.members.contains_key(name) && !watched.has_failed(name)
            });
            for (name, ask) in &plan.members {
                match members.get(name) {
                    Some(watched) => watched.follow(ask),
                    None => {
                        members.insert(name.clone(), self.watch(name, ask));
                    }
                }
            }
            if self.plan.changed().await.is_err() {
                return Gone;
            }
        }
    }

    fn watch(&self, name: &MemberName, ask: &Ask) -> Watched {
        debug!(member = %name, postgres = %ask.postgres, "asking a new member");
        let (ask_tx, ask_rx) = watch::channel(ask.clone());
        let reporter =
            Reporter { member: name.clone(), clock: self.clock, reports: self.reports.clone() };
        let unreachable = Hint::default();
        let mut tasks =
            vec![Task::spawn(resolver::run(ask_rx.clone(), reporter.clone(), unreachable.clone()))];
        if let Some(http) = &self.http {
            tasks.push(Task::spawn(patroni::run(
                Beat::new(ask_rx.clone(), |pace| pace.patroni),
                http.clone(),
                reporter.clone(),
                self.hint.clone(),
            )));
        }
        if let Some(login) = &self.login {
            let beat = Beat::new(ask_rx, |pace| pace.tether);
            let tether = Tether::new(beat, login.clone(), reporter, unreachable);
            tasks.push(Task::spawn(tether.run()));
        }
        Watched { ask: ask_tx, tasks }
    }
}

impl Watched {
    /// One of its tasks has come to an end, which none does as long as it is fed: it panicked. What
    /// it said expires, and the plan that comes of that starts all of them anew.
    fn has_failed(&self, member: &MemberName) -> bool {
        let has_failed = self.tasks.iter().any(Task::is_over);
        if has_failed {
            error!(%member, "a source has failed, its member is asked anew");
        }
        has_failed
    }

    fn follow(&self, ask: &Ask) {
        self.ask.send_if_modified(|current| {
            let is_new = current != ask;
            if is_new {
                current.clone_from(ask);
            }
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use pgsteer_core::names::Endpoint;
    use pgsteer_core::plan::Pace;

    use super::*;

    #[tokio::test]
    async fn a_member_one_of_whose_sources_has_failed_is_asked_anew() {
        let member = MemberName::new("pg1").unwrap();
        let ask = Ask {
            postgres: Endpoint::new("127.0.0.1", 5432).unwrap(),
            addresses: Vec::new(),
            patroni_url: None,
            pace: Pace { tether: Duration::from_secs(1), patroni: Duration::from_secs(1) },
        };
        let watched = |tasks| Watched { ask: watch::channel(ask.clone()).0, tasks };
        let well = watched(vec![Task::spawn(pending())]);
        let failed =
            watched(vec![Task::spawn(pending()), Task::spawn(async { panic!("on purpose") })]);
        tokio::task::yield_now().await;
        assert!(!well.has_failed(&member));
        assert!(failed.has_failed(&member));
    }
}
