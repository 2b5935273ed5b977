//! The keeper of one address: runs its machine against the kernel and the network, and logs.

use std::io;

use pgsteer_core::names::VipName;
use pgsteer_core::settings::VipConfig;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;

use super::announcer::Announcer;
use super::interface::{self, Interface};
use super::kernel::{self, Found};
use super::machine::{Action, CONFIRM_WITHIN, Change, Machine, State, View};
use crate::log::limit::DECISIONS;
use crate::stats::{Holding, Vip};
use pgsteer_core::vip::{Demand, demand};

/// One address.
#[derive(Debug)]
pub struct Keeper {
    name: VipName,
    config: VipConfig,
    machine: Machine,
    announcer: Option<Announcer>,
    /// Why nothing can be sent about the address, as logged.
    mute: Option<String>,
    /// Why the address could not be added.
    unadded: Option<String>,
    /// The machine that has an address for which this one asks.
    holder: Option<String>,
    shown: Vip,
}

/// The inputs of one look at all addresses.
pub struct Look<'a> {
    /// The newest Snapshot.
    pub snapshot: &'a Snapshot,
    /// The engine runs, and every member was asked since the last stop of this process.
    pub is_current: bool,
    /// The addresses of this machine.
    pub addresses: &'a io::Result<Vec<Found>>,
    /// Now.
    pub now: Moment,
}

impl Keeper {
    /// A keeper that has not looked yet.
    pub fn new(name: VipName, config: VipConfig, now: Moment) -> Keeper {
        let shown = Vip {
            name: name.clone(),
            address: config.to_string(),
            interface: config.interface.clone(),
            service: config.service.clone(),
            holding: Holding::Released,
            since: now,
            why: "pgsteer has just started".to_owned(),
            trouble: None,
            duplicate: None,
            announced_at: None,
            added_total: 0,
            removed_total: 0,
        };
        Keeper {
            name,
            config,
            machine: Machine::default(),
            announcer: None,
            mute: None,
            unadded: None,
            holder: None,
            shown,
        }
    }

    /// The state for the pages.
    pub fn shown(&self) -> &Vip {
        &self.shown
    }

    /// Returns true if this is the address of `name` and `config`.
    pub fn is_of(&self, name: &VipName, config: &VipConfig) -> bool {
        self.name == *name && self.config == *config
    }

    /// Does what the Snapshot and the kernel demand now.
    pub fn look(&mut self, look: &Look<'_>) {
        let now = look.now;
        self.listen(now);
        let demand = demand(&self.config, look.snapshot);
        let place = place(&self.config, look.addresses);
        let (found, interface) = match place {
            Ok(place) => place,
            Err(trouble) => return self.fail(trouble, &demand, now),
        };
        let view =
            View { demand: &demand, is_current: look.is_current, is_here: found.is_some(), now };
        let step = self.machine.step(view);
        let done: Result<(), String> =
            step.actions.iter().try_for_each(|action| self.act(*action, found, interface, now));
        if let (Some(change), Ok(())) = (step.change, &done) {
            self.log(change, &demand);
        }
        match (step.actions.first(), &done, &demand) {
            (Some(Action::Add), Err(error), _) => self.unadded = Some(error.clone()),
            (Some(Action::Add), Ok(()), _) => self.unadded = None,
            (_, _, Demand::Hold(_) | Demand::Share { .. }) => {}
            _ => self.unadded = None,
        }
        let is_here = match (&done, step.actions.first()) {
            (Ok(()), Some(Action::Add)) => true,
            (Ok(()), Some(Action::Remove)) => false,
            _ => found.is_some(),
        };
        if !is_here && !self.machine.is_asking() {
            // An address that could not be added is tried again as a new one.
            self.machine.note_absence();
            self.announcer = None;
        } else if self.announcer.is_none() {
            // Another machine may announce the address from now on. `announce` reports errors.
            let _ = self.announcer();
        }
        self.show(
            is_here,
            &demand,
            done.err().or_else(|| refusal(&demand)).or_else(|| self.unadded.clone()),
            now,
        );
    }

    /// Removes the address if it is on the interface.
    pub fn release(&mut self, why: &str) {
        let (name, vip, interface) = (&self.name, &self.config, &self.config.interface);
        match remove(vip) {
            Ok(true) => {
                tracing::info!(target: DECISIONS, "vip {name}: {vip} leaves {interface}: {why}");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(target: DECISIONS, "vip {name}: {error}"),
        }
    }

    /// Reads who else has the address.
    fn listen(&mut self, now: Moment) {
        if !self.machine.is_asking() || !self.machine.is_contested(now) {
            self.holder = None;
        }
        let rival = self.announcer.as_ref().and_then(Announcer::rival);
        if let Some(mac) = rival {
            let own = self.announcer.as_ref().map(Announcer::mac);
            self.machine.note_contest(now, own.is_some_and(|own| mac < own));
            let mac = interface::text(mac);
            if self.machine.is_asking() {
                self.holder = Some(mac);
                return;
            }
            if self.shown.duplicate.as_ref() != Some(&mac) && self.holds() {
                let (name, vip) = (&self.name, &self.config);
                tracing::error!(
                    target: DECISIONS,
                    "vip {name}: {vip} is a duplicate: the machine with {mac} answers for it too; clients \
                     reach one of the two"
                );
            }
            self.shown.duplicate = Some(mac);
        }
        if !self.machine.is_contested(now) && self.shown.duplicate.take().is_some() && self.holds()
        {
            let (name, vip) = (&self.name, &self.config);
            tracing::info!(target: DECISIONS, "vip {name}: {vip} is no longer a duplicate");
        }
    }

    fn holds(&self) -> bool {
        matches!(self.machine.state(), State::Held { .. })
    }

    fn act(
        &mut self,
        action: Action,
        found: Option<Found>,
        interface: Interface,
        now: Moment,
    ) -> Result<(), String> {
        let (vip, name) = (self.config.clone(), self.config.interface.clone());
        match (action, found) {
            (Action::Add, _) => {
                let added = kernel::add(&vip, interface.index);
                added.map_err(|error| explained(&error, &format!("cannot add {vip} to {name}")))?;
                self.shown.added_total += 1;
            }
            (Action::Remove, Some(found)) => {
                let removed = kernel::remove(&found);
                let doing = format!("cannot remove {vip} from {name}");
                removed.map_err(|error| explained(&error, &doing))?;
                self.shown.removed_total += 1;
            }
            (Action::Remove, None) => {}
            // The address works without an announcement, only later for some clients.
            (Action::Announce, _) => {
                if self.send(Announcer::announce, interface) {
                    self.shown.announced_at = Some(now);
                }
            }
            (Action::Ask, _) => {
                if self.send(Announcer::ask, interface) {
                    self.machine.note_asked();
                }
            }
        }
        Ok(())
    }

    /// Sends packets about the address. Returns false if that failed.
    fn send(&mut self, packets: fn(&Announcer) -> io::Result<()>, interface: Interface) -> bool {
        let is_same = |it: &Announcer| it.interface() == interface;
        if !self.announcer.as_ref().is_some_and(is_same) {
            self.announcer = None;
        }
        let sent = self.announcer().and_then(|announcer| match announcer {
            Some(announcer) => packets(announcer),
            None => Err(io::Error::other("it is not an Ethernet interface")),
        });
        let mute = sent.err().map(|error| {
            explained(
                &error,
                &format!(
                    "cannot announce {} or ask for it on {}",
                    self.config, self.config.interface
                ),
            )
        });
        if let Some(mute) = mute.as_ref().filter(|mute| self.mute.as_ref() != Some(mute)) {
            tracing::warn!(target: DECISIONS, "vip {}: {mute}", self.name);
        }
        self.mute = mute;
        self.mute.is_none()
    }

    /// Opens the announcer if it is not open.
    fn announcer(&mut self) -> io::Result<Option<&Announcer>> {
        if self.announcer.is_none() {
            let name = &self.config.interface;
            if let Some(interface) = interface::find(name)? {
                self.announcer = Announcer::open(self.config.address, name, interface)?;
            }
        }
        Ok(self.announcer.as_ref())
    }

    fn fail(&mut self, trouble: String, demand: &Demand, now: Moment) {
        self.show(false, demand, Some(trouble), now);
    }

    fn show(&mut self, is_here: bool, demand: &Demand, trouble: Option<String>, now: Moment) {
        let holding = match (self.machine.state(), is_here) {
            (State::Held { .. }, true) => Holding::Held,
            (_, true) => Holding::Unconfirmed,
            (_, false) => Holding::Released,
        };
        let speaks = self.holds() || self.machine.is_asking();
        let trouble = trouble.or_else(|| self.mute.clone().filter(|_| speaks));
        if let Some(new) = trouble.as_ref().filter(|new| self.shown.trouble.as_ref() != Some(new))
            && self.mute.as_ref() != Some(new)
        {
            tracing::error!(target: DECISIONS, "vip {}: {new}", self.name);
        }
        if holding != self.shown.holding {
            self.shown.since = now;
        }
        self.shown.holding = holding;
        self.shown.why = match &self.holder {
            Some(mac) if self.machine.is_asking() => {
                format!("{}; the machine with {mac} has the address", demand.why())
            }
            _ => demand.why().to_owned(),
        };
        self.shown.trouble = trouble;
    }

    fn log(&self, change: Change, demand: &Demand) {
        let (name, vip, why) = (&self.name, &self.config, demand.why());
        let interface = &self.config.interface;
        match change {
            Change::Added => {
                tracing::info!(target: DECISIONS, "vip {name}: {vip} is added to {interface}: {why}");
            }
            Change::Adopted => {
                tracing::info!(target: DECISIONS, "vip {name}: {vip} stays on {interface}: {why}");
            }
            Change::AddedAgain => tracing::warn!(
                target: DECISIONS,
                "vip {name}: another program removed {vip} from {interface}; it is added again: {why}"
            ),
            Change::Removed => {
                tracing::warn!(target: DECISIONS, "vip {name}: {vip} leaves {interface}: {why}");
            }
            Change::Lost => tracing::warn!(
                target: DECISIONS,
                "vip {name}: another program removed {vip} from {interface}; it is not added: {why}"
            ),
            Change::RemovedForeign => tracing::warn!(
                target: DECISIONS,
                "vip {name}: {vip} was on {interface}, added by another program or left behind; it is \
                 removed: {why}"
            ),
            Change::Unconfirmed => tracing::warn!(
                target: DECISIONS,
                "vip {name}: {vip} is on {interface} and not confirmed ({why}); it is removed after {} s \
                 without confirmation",
                CONFIRM_WITHIN.as_secs()
            ),
        }
    }
}

/// Removes the address from its interface. Returns true if it was there.
///
/// # Errors
/// The kernel refuses.
pub fn remove(vip: &VipConfig) -> Result<bool, String> {
    let (Some(found), _) = place(vip, &kernel::addresses())? else { return Ok(false) };
    let doing = || format!("cannot remove {vip} from {}", vip.interface);
    kernel::remove(&found).map_err(|error| explained(&error, &doing()))?;
    Ok(true)
}

/// Finds the interface, and the address on it.
fn place(
    vip: &VipConfig,
    addresses: &io::Result<Vec<Found>>,
) -> Result<(Option<Found>, Interface), String> {
    let name = &vip.interface;
    let interface = interface::find(name)
        .map_err(|error| explained(&error, "cannot read the interfaces"))?
        .ok_or_else(|| format!("there is no interface {name} on this machine"))?;
    let addresses = addresses
        .as_ref()
        .map_err(|error| explained(error, "cannot read the addresses of this machine"))?;
    let same = || addresses.iter().filter(|found| found.address == vip.address);
    match (same().find(|found| found.index == interface.index), same().next()) {
        (None, Some(elsewhere)) => {
            let other = interface::name_of(elsewhere.index);
            let other = other.unwrap_or_else(|| format!("interface {}", elsewhere.index));
            Err(format!("{} is on {other} already; remove it there", vip.address))
        }
        (here, _) => Ok((here.copied(), interface)),
    }
}

fn refusal(demand: &Demand) -> Option<String> {
    match demand {
        Demand::Refuse(why) => Some(why.clone()),
        Demand::Hold(_)
        | Demand::Share { .. }
        | Demand::GiveUp(_)
        | Demand::Stay(_)
        | Demand::Release(_) => None,
    }
}

/// The error with what to do about it.
fn explained(error: &io::Error, doing: &str) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; pgsteer needs CAP_NET_ADMIN and CAP_NET_RAW (docs/VIP.md, \"systemd\")"
        }
        _ => "",
    };
    format!("{doing}: {error}{remedy}")
}
