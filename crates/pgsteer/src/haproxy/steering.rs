//! The task of one HAProxy: sends what the state machine returns, and observes HAProxy.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::{Config, HaproxySocket};
use pgsteer_core::snapshot::Snapshot;
use pgsteer_files::render::label::labels;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::answer::{self, AnswerError, Process, ProcessKey};
use super::command::{Command, line};
use super::connection::{ExchangeError, exchange};
use super::machine::{Machine, Observed};
use super::order::{Target, targets};
use super::state_file;
use super::view::{Differences, View, Views};
use crate::clock::Clock;
use crate::heartbeat::Heartbeat;
use crate::log::limit::DECISIONS;

/// How often the process id is read, which shows a reload of HAProxy.
const PROCESS_EVERY: Duration = Duration::from_millis(100);

/// How often the servers are read.
const SERVERS_EVERY: Duration = Duration::from_millis(500);

/// The pause between commands and the observation of their effect.
const AFTER_COMMANDS: Duration = Duration::from_millis(20);

/// The first and the longest pause after a failed exchange.
const RETRY_AFTER: Duration = Duration::from_millis(20);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// A failure that ends within this time, as in a reload of HAProxy, is not reported.
const TROUBLE_AFTER: Duration = Duration::from_millis(300);

/// How long a start waits for the first complete Snapshot.
const FIRST_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of commands in one line: HAProxy reads a line into one buffer (`tune.bufsize`,
/// 16 kB), and the name of a server may be long.
const COMMANDS_MAX: usize = 64;

/// The inputs of the task.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The configuration.
    pub config: Arc<Config>,
    /// The newest Snapshot.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The clock of the heartbeat.
    pub clock: Clock,
    /// When the engine last ran.
    pub heartbeat: Arc<Heartbeat>,
    /// Where the pages read what HAProxy shows.
    pub views: Arc<Views>,
}

/// The task.
#[derive(Debug)]
pub struct Steering {
    socket: HaproxySocket,
    limit: Duration,
    inputs: Inputs,
    machine: Machine,
    differences: Differences,
    /// Commands sent since the start.
    commands: u64,
    failing: Option<Failing>,
    /// What HAProxy's configuration lacks, as it was logged.
    lacks: Vec<String>,
    /// The last refusal of a command, as it was logged.
    refusal: Option<String>,
    /// Why the state file could not be written, as it was logged.
    unwritten: Option<String>,
    servers_due: Instant,
    next: Instant,
}

/// A failure that lasts.
#[derive(Debug)]
struct Failing {
    since: Instant,
    pause: Duration,
    /// What was logged.
    logged: Option<String>,
}

/// The result of an observation, with the number of commands that had been sent when it began.
struct Look {
    commands: u64,
    result: Result<Seen, ExchangeError>,
}

pub(super) enum Seen {
    /// The same process, and its servers were not read.
    Process,
    /// Another process, or its servers were due.
    Servers(Observed),
}

impl Steering {
    /// The task of `socket`.
    pub fn new(socket: HaproxySocket, limit: Duration, inputs: Inputs) -> Steering {
        let config = &inputs.config;
        let configured = config.haproxy.as_ref().map(|haproxy| &haproxy.backends);
        let labels = labels(config.services.keys().map(ServiceName::as_str));
        let backends = config.services.keys().zip(labels).map(|(service, label)| {
            let named = configured.and_then(|backends| backends.get(service));
            (service.clone(), named.cloned().unwrap_or(label))
        });
        let add_servers = config.haproxy.as_ref().and_then(|it| it.add_servers.as_deref());
        let machine = Machine::new(backends.collect(), add_servers);
        let now = Instant::now();
        Steering {
            socket,
            limit,
            machine,
            differences: Differences::default(),
            commands: 0,
            failing: None,
            lacks: Vec::new(),
            refusal: None,
            unwritten: None,
            servers_due: now,
            next: now,
            inputs,
        }
    }

    /// Steers until the engine ends.
    pub async fn run(mut self) {
        let settled = self.inputs.snapshots.wait_for(|snapshot| snapshot.is_settled());
        // After the timeout the members that have answered are steered.
        let _ = timeout(FIRST_SNAPSHOT_TIMEOUT, settled).await.map(|settled| settled.map(drop));
        let mut look: Option<JoinHandle<Look>> = None;
        loop {
            tokio::select! {
                biased;
                changed = self.inputs.snapshots.changed() => match changed {
                    Ok(()) => self.push().await,
                    Err(_) => return,
                },
                looked = finished(&mut look) => {
                    look = None;
                    if let Some(looked) = looked {
                        self.handle(looked).await;
                    }
                }
                () = sleep_until(self.next), if look.is_none() => look = Some(self.look()),
            }
        }
    }

    /// The orders of the newest Snapshot; none if it may be old.
    fn targets(&mut self) -> Option<Vec<Target>> {
        let snapshot = Arc::clone(&self.inputs.snapshots.borrow_and_update());
        let Inputs { config, clock, heartbeat, .. } = &self.inputs;
        let is_old = heartbeat.age(clock.now()) >= Heartbeat::OLD_AFTER;
        targets(&config.services, &snapshot).filter(|_| !is_old)
    }

    /// Sends the orders that have changed.
    async fn push(&mut self) {
        if let Some(targets) = self.targets() {
            let commands = self.machine.handle_targets(&targets);
            self.send(commands).await;
        }
    }

    async fn send(&mut self, commands: Vec<Command>) {
        for part in commands.chunks(COMMANDS_MAX) {
            self.commands += part.len() as u64;
            let line = line(part);
            tracing::debug!(haproxy = %self.socket, "{line}");
            let is_repeated = match exchange(&self.socket, self.limit, &line).await {
                Ok(answer) => self.note_refusals(&answer),
                Err(error) => {
                    self.machine.note_loss();
                    self.note_failure(error);
                    return;
                }
            };
            let pause = if is_repeated { RETRY_AFTER_MAX } else { AFTER_COMMANDS };
            self.servers_due = Instant::now() + pause;
            self.next = self.servers_due;
        }
    }

    /// Logs what HAProxy refuses, once. Returns true if it has refused the same before.
    fn note_refusals(&mut self, answer: &str) -> bool {
        let refusal = refusals(answer).find(|line| !is_expected(line)).map(why_refused);
        let is_repeated = refusal.is_some() && self.refusal == refusal;
        if let Some(refusal) = &refusal {
            // The name of a server may be out of date.
            self.machine.note_loss();
            if !is_repeated {
                tracing::warn!(target: DECISIONS, "HAProxy at {}: {refusal}", self.socket);
            }
        }
        self.refusal = refusal;
        is_repeated
    }

    /// Begins an observation. It goes on beside the commands, so that a slow answer does not delay them.
    fn look(&mut self) -> JoinHandle<Look> {
        let now = Instant::now();
        let (socket, limit, commands) = (self.socket.clone(), self.limit, self.commands);
        let known = self.machine.process().filter(|_| now < self.servers_due);
        let backends = self.machine.backends().cloned().collect();
        self.next = now + PROCESS_EVERY;
        tokio::spawn(async move {
            let result = observe(&socket, limit, known, backends).await;
            Look { commands, result }
        })
    }

    async fn handle(&mut self, look: Look) {
        let observed = match look.result {
            Err(error) => {
                self.machine.note_loss();
                return self.note_failure(error);
            }
            Ok(Seen::Process) => return,
            // Commands were sent meanwhile: what was seen may be older than they are.
            Ok(Seen::Servers(_)) if look.commands != self.commands => {
                return self.servers_due = Instant::now();
            }
            Ok(Seen::Servers(observed)) => observed,
        };
        self.servers_due = Instant::now() + SERVERS_EVERY;
        self.note_process(&observed.process);
        let targets = self.targets();
        let now = self.inputs.clock.now();
        let commands = self.machine.handle_observed(observed, targets.as_deref(), now);
        let targets = targets.unwrap_or_default();
        self.show(&targets);
        match commands.is_empty() {
            true => self.write_state().await,
            // What was observed is about to change.
            false => self.send(commands).await,
        }
        // A connection that was just lost is tried again later.
        if self.machine.process().is_some() {
            let commands = self.machine.handle_members(&targets, now);
            self.add_and_remove(commands).await;
        }
    }

    /// Sends the commands that add and remove servers. They are apart from the orders, so that a refusal
    /// does not delay those.
    async fn add_and_remove(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.commands += 1;
            let line = line(std::slice::from_ref(&command));
            tracing::info!(target: DECISIONS, "HAProxy at {}: {line}", self.socket);
            self.next = Instant::now() + AFTER_COMMANDS;
            self.servers_due = self.next;
            let answer = match exchange(&self.socket, self.limit, &line).await {
                Ok(answer) => answer,
                Err(error) => return self.note_failure(error),
            };
            let refusal = refusals(&answer).find(|line| !is_of_membership(line)).map(why_refused);
            let is_done = answer.contains(ADDED) || answer.contains(DELETED);
            self.machine.note_member_result(&command, is_done, refusal, self.inputs.clock.now());
        }
    }

    /// Writes what was observed for the next start of HAProxy. Only a state that follows the orders
    /// is written.
    async fn write_state(&mut self) {
        let configured = self.inputs.config.haproxy.as_ref();
        let Some(path) = configured.and_then(|haproxy| haproxy.state_file.as_ref()) else { return };
        let state = &self.machine.observed().state;
        if state.is_empty() || self.machine.process().is_none() {
            return;
        }
        let failure = state_file::write(path, state).await.err().map(|error| error.to_string());
        if let Some(error) =
            failure.as_ref().filter(|error| self.unwritten.as_ref() != Some(*error))
        {
            tracing::warn!(
                target: DECISIONS,
                "state_file of [haproxy], {}, cannot be written: {error}", path.display()
            );
        }
        self.unwritten = failure;
    }

    fn note_process(&mut self, process: &Process) {
        let socket = &self.socket;
        let Process { version, pid, .. } = process;
        let failing = self.failing.take().and_then(|failing| failing.logged);
        let old = &self.machine.observed().process;
        if old.pid == 0 || failing.is_some() {
            tracing::info!(target: DECISIONS, "HAProxy {version} at {socket} is steered (pid {pid})");
        } else if old.key() != process.key() {
            tracing::info!(
                target: DECISIONS,
                "HAProxy at {socket} was restarted (pid {pid}): all orders are sent again"
            );
        }
    }

    fn note_failure(&mut self, error: ExchangeError) {
        let now = Instant::now();
        let failing =
            self.failing.get_or_insert(Failing { since: now, pause: RETRY_AFTER, logged: None });
        self.next = now + failing.pause;
        self.servers_due = now;
        failing.pause = (failing.pause * 2).min(RETRY_AFTER_MAX);
        let text = error.to_string();
        if now - failing.since < TROUBLE_AFTER || failing.logged.as_ref() == Some(&text) {
            return;
        }
        tracing::warn!(target: DECISIONS, "HAProxy at {} is not steered: {text}", self.socket);
        failing.logged = Some(text.clone());
        self.put(View { trouble: Some(text), commands: self.commands, ..View::default() });
    }

    /// Shows the pages what was observed, and logs what HAProxy's configuration lacks.
    fn show(&mut self, targets: &[Target]) {
        let lacks = self.machine.lacks(targets);
        for lack in lacks.iter().filter(|lack| !self.lacks.contains(lack)) {
            tracing::warn!(target: DECISIONS, "HAProxy at {}: {lack}", self.socket);
        }
        self.lacks = lacks.clone();
        let steered = self.machine.steered(targets);
        let servers = self.differences.views(&steered, self.inputs.clock.now());
        let process = Some(self.machine.observed().process.clone());
        let trouble = self.refusal.clone();
        self.put(View { trouble, process, lacks, servers, commands: self.commands });
    }

    fn put(&self, view: View) {
        self.inputs.views.put(&self.socket.to_string(), view);
    }
}

/// Waits for the observation under way; forever if there is none. None if its task has ended early.
async fn finished(look: &mut Option<JoinHandle<Look>>) -> Option<Look> {
    match look {
        Some(look) => look.await.ok(),
        None => pending().await,
    }
}

/// The lines of an answer that are not empty. A command that was carried out has an empty answer.
fn refusals(answer: &str) -> impl Iterator<Item = &str> {
    answer.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// The answers to `add server` and `del server` that were carried out.
const ADDED: &str = "New server registered";
const DELETED: &str = "Server deleted";

/// Answers to the commands that add and remove servers and are no refusals: another pgsteer was first, or a
/// session has begun meanwhile.
fn is_of_membership(line: &str) -> bool {
    [ADDED, DELETED, "Already exists", "still has connections"].iter().any(|it| line.contains(it))
}

/// Refusals that are expected: a server without a health check, or with that of another server.
fn is_expected(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("health checks are not enabled") || line.contains("tracking")
}

/// The refusal of a command as a sentence.
fn why_refused(line: &str) -> String {
    let level = answer::refused(line).map(|error| error.to_string());
    level.unwrap_or_else(|| format!("a command is refused: \"{}\"", answer::shown(line)))
}

/// Observes HAProxy. If the process is the `known` one, its servers are not read.
pub(super) async fn observe(
    socket: &HaproxySocket,
    limit: Duration,
    known: Option<ProcessKey>,
    backends: Vec<String>,
) -> Result<Seen, ExchangeError> {
    let process = answer::process(&exchange(socket, limit, "show info").await?)?;
    if known == Some(process.key()) {
        return Ok(Seen::Process);
    }
    let existing = answer::backends(&exchange(socket, limit, "show backend").await?);
    let (mut servers, mut whole) = (BTreeMap::new(), String::new());
    for backend in backends.into_iter().filter(|backend| existing.contains(backend)) {
        let state = exchange(socket, limit, &format!("show servers state {backend}")).await?;
        let found = match answer::backend_number(&state)? {
            Some(number) => {
                let stat = exchange(socket, limit, &format!("show stat {number} 4 -1")).await?;
                answer::servers(&state, &stat)?
            }
            None => Vec::new(),
        };
        state_file::add(&mut whole, &state);
        servers.insert(backend, found);
    }
    let count: usize = servers.values().map(Vec::len).sum();
    match count > answer::SERVERS_MAX {
        true => Err(AnswerError::TooMany.into()),
        false => Ok(Seen::Servers(Observed { process, backends: servers, state: whole })),
    }
}
