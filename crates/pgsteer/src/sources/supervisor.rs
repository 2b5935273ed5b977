//! The supervisor: runs the tasks of the members in the plan, and of no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pgsteer_core::claim::Report;
use pgsteer_core::names::MemberName;
use pgsteer_core::plan::{Ask, Plan};
use pgsteer_core::settings::defaults::CHECK_TIMEOUT;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::http::Client;
use super::probe_timer::ProbeTimer;
use super::tether::{Login, Tether};
use super::{Gone, Hint, Reporter, Task, new_sessions, patroni, pooler, resolver};
use crate::clock::Clock;
use crate::refusal_hints::RefusalHints;

/// Starts and ends the sources of the members.
#[derive(Clone)]
pub struct Supervisor {
    /// The client for Patroni; none without Patroni.
    pub http: Option<Arc<Client>>,
    /// The login of the tether; none without one.
    pub login: Option<Arc<Login>>,
    /// Notified when a request to a member's Patroni fails.
    pub hint: Hint,
    /// The members that refused a client.
    pub refusal_hints: Arc<RefusalHints>,
    /// Converts instants to the core's moments.
    pub clock: Clock,
    /// Where the sources report.
    pub reports: mpsc::Sender<Report>,
    /// The members and endpoints to probe.
    pub plan: watch::Receiver<Arc<Plan>>,
}

/// The tasks of one member, and the channel with its part of the plan.
struct Watched {
    ask: watch::Sender<Ask>,
    _tasks: Vec<Task>,
    /// The task that probes its server; none while the server is not probed.
    server: Option<Task>,
    /// The poolers' tasks, by port.
    poolers: BTreeMap<u16, Task>,
    reporter: Reporter,
    /// Notified when the tether reaches no server at the known addresses.
    unreachable: Hint,
}

impl Supervisor {
    /// Follows the plan until it ends.
    pub async fn run(mut self) -> Gone {
        let mut members: BTreeMap<MemberName, Watched> = BTreeMap::new();
        loop {
            let plan = self.plan.borrow_and_update().clone();
            members.retain(|name, _| plan.members.contains_key(name));
            for (name, ask) in &plan.members {
                let watched = members.entry(name.clone()).or_insert_with(|| self.watch(name, ask));
                watched.follow(ask);
                self.watch_server(watched, ask.has_tether);
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
        let mut tasks = vec![Task::keep(
            format!("the resolver of {name}"),
            (ask_rx.clone(), reporter.clone(), unreachable.clone()),
            |(ask, reporter, unreachable)| resolver::run(ask, reporter, unreachable),
        )];
        if let Some(http) = &self.http {
            let timer = ProbeTimer::new(ask_rx, |pace| pace.patroni, self.clock).with_jitter();
            tasks.push(Task::keep(
                format!("the Patroni probe of {name}"),
                (timer, http.clone(), reporter.clone(), self.hint.clone()),
                |(timer, http, reporter, hint)| patroni::run(timer, http, reporter, hint),
            ));
        }
        let poolers = BTreeMap::new();
        Watched { ask: ask_tx, _tasks: tasks, server: None, poolers, reporter, unreachable }
    }

    /// Starts or ends the task that probes a member's server: the tether, or without a login the
    /// source of new sessions.
    fn watch_server(&self, watched: &mut Watched, is_wanted: bool) {
        if !is_wanted {
            watched.server = None;
            return;
        }
        if watched.server.is_some() {
            return;
        }
        let (reporter, unreachable) = (watched.reporter.clone(), watched.unreachable.clone());
        let (name, ask) = (reporter.member.clone(), watched.ask.subscribe());
        let doubt = self.refusal_hints.of(&name);
        watched.server = Some(match &self.login {
            Some(login) => {
                let timer = ProbeTimer::new(ask, |pace| pace.tether, self.clock);
                let tether = Tether::new(timer, login.clone(), reporter, unreachable, doubt);
                Task::keep(format!("the tether of {name}"), tether, Tether::run)
            }
            None => {
                let anonymous = Arc::new(Login::anonymous(CHECK_TIMEOUT));
                Task::keep(
                    format!("the new-session probe of {name}"),
                    (ask, anonymous, reporter, doubt),
                    |(ask, anonymous, reporter, doubt)| {
                        new_sessions::run(ask, anonymous, reporter, doubt)
                    },
                )
            }
        });
    }

    /// Starts and ends tasks so that the watched poolers of a member are those on `ports`.
    fn watch_poolers(&self, watched: &mut Watched, ports: &BTreeSet<u16>) {
        watched.poolers.retain(|port, _| ports.contains(port));
        for port in ports {
            let (ask, reporter) = (watched.ask.subscribe(), watched.reporter.clone());
            watched.poolers.entry(*port).or_insert_with(|| self.watch_pooler(*port, ask, reporter));
        }
    }

    fn watch_pooler(&self, port: u16, ask: watch::Receiver<Ask>, reporter: Reporter) -> Task {
        let what = format!("the probe of the pooler of {} on {port}", reporter.member);
        let timer = ProbeTimer::new(ask, |pace| pace.pooler, self.clock);
        match &self.login {
            Some(login) => {
                let tether = Tether::through_pooler(port, timer, login.clone(), reporter);
                Task::keep(what, tether, Tether::run)
            }
            None => {
                let anonymous = Arc::new(Login::anonymous(CHECK_TIMEOUT));
                Task::keep(
                    what,
                    (timer, anonymous, reporter),
                    move |(timer, anonymous, reporter)| {
                        pooler::run(port, timer, anonymous, reporter)
                    },
                )
            }
        }
    }
}

impl Watched {
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
