//! The state machine of one HAProxy: orders and observations in, commands out. It does no IO.
//!
//! A change of an order is sent at once. An observation corrects what differs from the orders: a HAProxy
//! that was started anew, a server that its health check made UP, a session that is left. Commands in the
//! safe direction are repeated at each observation. The weight of an open gate is restored with growing
//! pauses, because another program (a second pgsteer with another view) may have set it to 0.

use std::collections::BTreeMap;
use std::time::Duration;

use pgsteer_core::names::ServiceName;
use pgsteer_core::time::Moment;

use super::answer::{Process, ProcessKey, Server};
use super::command::{Command, ServerKey};
use super::joining::Joining;
use super::order::{Order, Target, Wanted, other_member_at, server_of};

/// The first and the longest pause before a weight of 0 that another program has set is undone again.
const RESTORE_AFTER: Duration = Duration::from_secs(2);
const RESTORE_AFTER_MAX: Duration = Duration::from_secs(60);

/// What was observed of one HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The process.
    pub process: Process,
    /// The servers of the backends that exist.
    pub backends: BTreeMap<String, Vec<Server>>,
    /// The answers to `show servers state`, in the format of HAProxy's `server-state-file`.
    pub state: String,
}

/// The server of a target.
#[derive(Clone, Debug)]
pub struct Steered<'a> {
    /// Its key.
    pub key: ServerKey,
    /// The target.
    pub target: &'a Target,
    /// Its last observed state.
    pub server: &'a Server,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// The backend of each service.
    backends: BTreeMap<ServiceName, String>,
    /// The orders that were sent, or found to be carried out.
    sent: BTreeMap<ServerKey, Order>,
    /// The process that they were sent to; none if they may have been lost.
    process: Option<ProcessKey>,
    /// The last observation.
    observed: Observed,
    /// When the weight of an open gate may be restored, and the pause after that.
    restores: BTreeMap<ServerKey, (Moment, Duration)>,
    joining: Joining,
}

impl Machine {
    /// A machine that has observed nothing. It adds servers with the keywords `add_servers`, if there are any.
    pub fn new(backends: BTreeMap<ServiceName, String>, add_servers: Option<&str>) -> Machine {
        let joining = Joining::new(add_servers);
        Machine { backends, joining, ..Machine::default() }
    }

    /// The last observation.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Notes that commands may have been lost: all orders are sent again after the next observation.
    pub fn note_loss(&mut self) {
        self.process = None;
    }

    /// The process that has the orders; none if they may have been lost.
    pub fn process(&self) -> Option<ProcessKey> {
        self.process
    }

    /// The backends of all services.
    pub fn backends(&self) -> impl Iterator<Item = &String> {
        self.backends.values()
    }

    /// Returns the commands for orders that have changed, those for old primaries first.
    pub fn handle_targets(&mut self, targets: &[Target]) -> Vec<Command> {
        if self.process.is_none() {
            return Vec::new();
        }
        let mut changed: Vec<(ServerKey, Order)> = Vec::new();
        for Steered { key, target, .. } in steered(&self.backends, &self.observed, targets) {
            if self.sent.get(&key) != Some(&target.order) {
                changed.push((key, target.order));
            }
        }
        changed.sort_by_key(|(_, order)| order.wanted);
        let ends_at_once = !self.observed.process.loses_connecting_clients();
        let mut commands = Vec::new();
        for (key, order) in changed {
            let old = self.sent.insert(key.clone(), order);
            self.restores.remove(&key);
            commands.extend(transition(&key, old, order, ends_at_once));
        }
        commands
    }

    /// Returns the commands that correct what differs from the orders.
    pub fn handle_observed(
        &mut self,
        observed: Observed,
        targets: Option<&[Target]>,
        now: Moment,
    ) -> Vec<Command> {
        let is_new = self.process != Some(observed.process.key());
        let is_other_process = self.observed.process.key() != observed.process.key();
        self.process = Some(observed.process.key());
        self.observed = observed;
        if is_new {
            self.sent.clear();
            self.restores.clear();
        }
        if is_other_process {
            self.joining.note_new_process();
        }
        let Some(targets) = targets else {
            // They are sent when pgsteer has found them.
            self.process = None;
            return Vec::new();
        };
        let mut found = steered(&self.backends, &self.observed, targets);
        found.sort_by_key(|steered| steered.target.order.wanted);
        let ends_at_once = !self.observed.process.loses_connecting_clients();
        let mut commands = Vec::new();
        for Steered { key, target, server } in found {
            let is_changed = self.sent.insert(key.clone(), target.order) != Some(target.order);
            let may_restore = is_changed || may_restore(&mut self.restores, &key, server, now);
            commands.extend(match target.order.wanted {
                Wanted::Serve => opening(&key, server, is_changed, may_restore),
                _ => blocking(&key, server, target.order, ends_at_once || !is_changed),
            });
        }
        commands
    }

    /// Returns the commands that add and remove servers, after the newest observation.
    pub fn handle_members(&self, targets: &[Target], now: Moment) -> Vec<Command> {
        let Machine { backends, observed, joining, .. } = self;
        let of_service = |(service, backend): (&ServiceName, &String)| {
            let servers = observed.backends.get(backend)?;
            Some(joining.commands(backend, servers, &targets_of(service, targets), now))
        };
        backends.iter().filter_map(of_service).flatten().collect()
    }

    /// Notes the result of such a command, as [`Joining::note_result`] does.
    pub fn note_member_result(
        &mut self,
        command: &Command,
        is_done: bool,
        refusal: Option<String>,
        now: Moment,
    ) {
        self.joining.note_result(command, is_done, refusal, now);
    }

    /// The servers of `targets`.
    pub fn steered<'a>(&'a self, targets: &'a [Target]) -> Vec<Steered<'a>> {
        steered(&self.backends, &self.observed, targets)
    }

    /// What the configuration of HAProxy lacks, one sentence each.
    pub fn lacks(&self, targets: &[Target]) -> Vec<String> {
        let mut lacks = Vec::new();
        for (service, backend) in &self.backends {
            let Some(servers) = self.observed.backends.get(backend) else {
                lacks.push(format!(
                    "HAProxy has no backend {backend} for service {service}: name it in `backends` of [haproxy]"
                ));
                continue;
            };
            let of_service = targets_of(service, targets);
            let swapped = of_service.iter().filter_map(|target| {
                let server = servers.iter().find(|server| server.name == target.label)?;
                let other = other_member_at(server, target, &of_service)?;
                Some(format!(
                    "server {} in backend {backend} of HAProxy is at the address of member {}: correct its line, or its name",
                    server.name, other.member
                ))
            });
            lacks.extend(swapped);
            let missing = of_service
                .iter()
                .filter(|target| server_of(target, &of_service, servers).is_none());
            lacks.extend(missing.filter_map(|target| {
                let port = target.ports.first().copied().unwrap_or_default();
                let Target { member, label, .. } = target;
                let remedy = self.joining.remedy(label)?;
                Some(format!(
                    "backend {backend} of HAProxy has no server for member {member}, by its name or its address and port {port}: {remedy}"
                ))
            }));
        }
        lacks
    }
}

fn targets_of<'a>(service: &ServiceName, targets: &'a [Target]) -> Vec<&'a Target> {
    targets.iter().filter(|target| target.service == *service).collect()
}

fn steered<'a>(
    backends: &BTreeMap<ServiceName, String>,
    observed: &'a Observed,
    targets: &'a [Target],
) -> Vec<Steered<'a>> {
    let mut steered = Vec::new();
    for (service, backend) in backends {
        let Some(servers) = observed.backends.get(backend) else { continue };
        let of_service = targets_of(service, targets);
        for target in &of_service {
            let Some(server) = server_of(target, &of_service, servers) else { continue };
            let key = ServerKey { backend: backend.clone(), server: server.name.clone() };
            steered.push(Steered { key, target, server });
        }
    }
    steered
}

/// The commands for a change of an order. Without `ends_at_once` the next observation ends the sessions.
fn transition(
    key: &ServerKey,
    old: Option<Order>,
    order: Order,
    ends_at_once: bool,
) -> Vec<Command> {
    let weight = |is_full| Command::Weight { server: key.clone(), is_full };
    match order.wanted {
        Wanted::Serve => vec![Command::HealthUp(key.clone()), weight(true)],
        Wanted::Pause => vec![weight(false)],
        // The role is known now: HAProxy's check can keep the server out. An observation shows whether it
        // does.
        Wanted::End if old.is_some_and(|old| old.wanted == Wanted::End) && order.has_other_role => {
            Vec::new()
        }
        Wanted::End if ends_at_once => vec![weight(false), Command::EndSessions(key.clone())],
        Wanted::End => vec![weight(false)],
    }
}

/// The commands that let new sessions in.
fn opening(key: &ServerKey, server: &Server, is_changed: bool, may_restore: bool) -> Vec<Command> {
    let mut commands = Vec::new();
    if is_changed && !server.is_up {
        commands.push(Command::HealthUp(key.clone()));
    }
    if server.weight == 0 && may_restore {
        commands.push(Command::Weight { server: key.clone(), is_full: true });
    }
    commands
}

/// The commands that keep new sessions out and, with `may_end`, end the old ones if the order says so.
fn blocking(key: &ServerKey, server: &Server, order: Order, may_end: bool) -> Vec<Command> {
    let mut commands = Vec::new();
    let is_kept_out = order.has_other_role && !server.is_up && server.check_fails;
    if is_kept_out == (server.weight == 0) {
        commands.push(Command::Weight { server: key.clone(), is_full: is_kept_out });
    }
    if order.wanted == Wanted::End && server.sessions > 0 && may_end {
        commands.push(Command::EndSessions(key.clone()));
    }
    commands
}

/// Returns true if a weight of 0 may be undone now, and notes the next pause.
fn may_restore(
    restores: &mut BTreeMap<ServerKey, (Moment, Duration)>,
    key: &ServerKey,
    server: &Server,
    now: Moment,
) -> bool {
    if server.weight != 0 {
        return false;
    }
    let (at, pause) = *restores.entry(key.clone()).or_insert((now + RESTORE_AFTER, RESTORE_AFTER));
    if now < at {
        return false;
    }
    let pause = (pause * 2).min(RESTORE_AFTER_MAX);
    restores.insert(key.clone(), (now + pause, pause));
    true
}
