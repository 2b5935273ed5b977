//! The supervisor: keeps the tasks of the members in the plan, and only theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pgsteer_core::claim::Report;
use pgsteer_core::config::limits::CHECK_TIMEOUT;
use pgsteer_core::names::MemberName;
use pgsteer_core::plan::{Ask, Plan};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error};

use super::beat::Beat;
use super::http::Client;
use super::tether::{Login, Tether};
use super::{Gone, Hint, Reporter, Task, patroni, pooler, resolver};
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
    /// By port.
    poolers: BTreeMap<u16, Task>,
    reporter: Reporter,
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
                let watched = members.entry(name.clone()).or_insert_with(|| self.watch(name, ask));
                watched.follow(ask);
                self.watch_poolers(watched, &ask.poolers);
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
                Beat::new(ask_rx.clone(), |pace| pace.patroni, self.clock),
                http.clone(),
                reporter.clone(),
                self.hint.clone(),
            )));
        }
        if let Some(login) = &self.login {
            let beat = Beat::new(ask_rx, |pace| pace.tether, self.clock);
            let tether = Tether::new(beat, login.clone(), reporter.clone(), unreachable);
            tasks.push(Task::spawn(tether.run()));
        }
        Watched { ask: ask_tx, tasks, poolers: BTreeMap::new(), reporter }
    }

    /// Makes the poolers that are watched beside a member those on `ports`.
    fn watch_poolers(&self, watched: &mut Watched, ports: &BTreeSet<u16>) {
        watched.poolers.retain(|port, _| ports.contains(port));
        for port in ports {
            let (ask, reporter) = (watched.ask.subscribe(), watched.reporter.clone());
            let beat = || Beat::new(ask, |pace| pace.pooler, self.clock);
            watched.poolers.entry(*port).or_insert_with(|| match &self.login {
                Some(login) => {
                    let tether = Tether::through_pooler(*port, beat(), login.clone(), reporter);
                    Task::spawn(tether.run())
                }
                None => {
                    let nobody = Arc::new(Login::of_nobody(CHECK_TIMEOUT.usual()));
                    Task::spawn(pooler::run(*port, beat(), nobody, reporter))
                }
            });
        }
    }
}

impl Watched {
    /// One of its tasks has come to an end, which none does as long as it is fed: it panicked. What
    /// it said expires, and the plan that comes of that starts all of them anew.
    fn has_failed(&self, member: &MemberName) -> bool {
        let has_failed = self.tasks.iter().chain(self.poolers.values()).any(Task::is_over);
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
            poolers: Default::default(),
            pace: Pace {
                tether: Duration::from_secs(1),
                patroni: Duration::from_secs(1),
                pooler: Duration::from_secs(1),
            },
        };
        let (reports, _heard) = mpsc::channel(1);
        let reporter = Reporter { member: member.clone(), clock: Clock::start(), reports };
        let watched = |tasks| Watched {
            ask: watch::channel(ask.clone()).0,
            tasks,
            poolers: BTreeMap::new(),
            reporter: reporter.clone(),
        };
        let well = watched(vec![Task::spawn(pending())]);
        let failed =
            watched(vec![Task::spawn(pending()), Task::spawn(async { panic!("on purpose") })]);
        tokio::task::yield_now().await;
        assert!(!well.has_failed(&member));
        assert!(failed.has_failed(&member));
    }
}
