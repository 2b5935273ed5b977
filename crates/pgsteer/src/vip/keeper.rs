//! The keeper of one address: runs its machine against the kernel and the network, and logs.

use std::io;

use pgsteer_core::names::VipName;
use pgsteer_core::settings::VipConfig;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;

use super::announcer::Announcer;
use super::interface::{self, Interface};
use super::kernel::{self, Found};
use super::machine::{Action, CONFIRM_WITHIN, Change, Machine, Presence, State, View};
use crate::log::limit::DECISIONS;
use crate::stats::{Holding, Vip};
use pgsteer_core::vip::{Demand, demand};

/// One address.
#[derive(Debug)]
pub struct Keeper {
    name: VipName,
    config: VipConfig,
    machine: Machine,
    /// The address on the interface, with the mark of pgsteer, as the kernel last showed it.
    ours: Vec<Found>,
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
            ours: Vec::new(),
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
        let place = match place(&self.config, look.addresses) {
            Ok(place) => place,
            Err(Unplaced::Absent(trouble)) => {
                self.ours.clear();
                return self.show(false, &demand, Some(trouble), now);
            }
            Err(Unplaced::Unknown(trouble)) => return self.look_blind(trouble, &demand, look),
        };
        self.ours.clone_from(&place.ours);
        let (is_current, presence) = (look.is_current, place.presence());
        let step = self.machine.step(View { demand: &demand, is_current, presence, now });
        let done: Result<(), String> =
            step.actions.iter().try_for_each(|action| self.act(*action, place.interface, now));
        if let (Some(change), Ok(())) = (step.change, &done) {
            self.log(change, &demand);
        }
        match (step.actions.first(), &done, &demand) {
            (Some(Action::Add), Err(error), _) => self.unadded = Some(error.clone()),
            (Some(Action::Add), Ok(()), _) => self.unadded = None,
            (_, _, Demand::Hold(_) | Demand::Share { .. }) => {}
            _ => self.unadded = None,
        }
        let is_here = !self.ours.is_empty();
        if !is_here && !self.machine.is_asking() {
            // An address that could not be added is tried again as a new one.
            self.machine.note_absence();
            self.announcer = None;
        } else if self.announcer.is_none() {
            // Another machine may announce the address from now on. `announce` reports errors.
            let _ = self.announcer();
        }
        let trouble = done
            .err()
            .or_else(|| refusal(&demand))
            .or_else(|| place.foreign.map(|found| foreign(&self.config, found)))
            .or_else(|| self.unadded.clone())
            .or_else(|| self.route(look, place.interface).err());
        self.show(is_here || place.foreign.is_some(), &demand, trouble, now);
    }

    /// Acts while the kernel does not show its addresses: an address that was there and must go is
    /// removed, and nothing is added.
    fn look_blind(&mut self, trouble: String, demand: &Demand, look: &Look<'_>) {
        let mut trouble = trouble;
        if !self.ours.is_empty() {
            let (is_current, presence, now) = (look.is_current, Presence::Ours, look.now);
            let step = self.machine.step(View { demand, is_current, presence, now });
            if step.actions.contains(&Action::Remove) {
                match (self.remove(), step.change) {
                    (Ok(()), Some(change)) => self.log(change, demand),
                    (Ok(()), None) => {}
                    (Err(error), _) => trouble = error,
                }
            }
        }
        self.show(!self.ours.is_empty(), demand, Some(trouble), look.now);
    }

    /// Adds the route to the network of the address if the machine has no other one.
    fn route(&self, look: &Look<'_>, interface: Interface) -> Result<(), String> {
        let (vip, index) = (&self.config, interface.index);
        let Ok(addresses) = look.addresses else { return Ok(()) };
        if self.ours.is_empty() || !kernel::needs_route(vip, index, addresses) {
            return Ok(());
        }
        let doing = || format!("cannot add the route to the network of {vip} on {}", vip.interface);
        kernel::add_route(vip, index).map_err(|error| explained(&error, &doing()))
    }

    /// Removes the address from the interface if pgsteer added it, unless pgsteer must not touch it.
    pub fn release(&mut self, why: &str) {
        let (vip, interface) = (self.config.clone(), self.config.interface.clone());
        if self.machine.state() == State::Refused {
            if !self.ours.is_empty() {
                let (name, reason) = (&self.name, &self.shown.why);
                tracing::warn!(
                    target: DECISIONS,
                    "vip {name}: {vip} stays on {interface} although {why}: {reason}"
                );
            }
            return;
        }
        match of_pgsteer(&vip) {
            Ok(ours) => self.ours = ours,
            // What was there at the last look is removed all the same.
            Err(error) => tracing::error!(target: DECISIONS, "vip {}: {error}", self.name),
        }
        if self.ours.is_empty() {
            return;
        }
        let (done, name) = (self.remove(), &self.name);
        match done {
            Ok(()) => {
                tracing::info!(target: DECISIONS, "vip {name}: {vip} leaves {interface}: {why}");
            }
            Err(error) => tracing::error!(target: DECISIONS, "vip {name}: {error}"),
        }
    }

    /// Removes the address as the kernel last showed it, with each of its prefixes.
    fn remove(&mut self) -> Result<(), String> {
        let mut failed = None;
        self.ours.retain(|found| {
            let removed = kernel::remove(found);
            let is_left = removed.is_err();
            failed = failed.take().or(removed.err());
            is_left
        });
        let doing = || format!("cannot remove {} from {}", self.config, self.config.interface);
        failed.map_or(Ok(()), |error| Err(explained(&error, &doing())))
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

    fn act(&mut self, action: Action, interface: Interface, now: Moment) -> Result<(), String> {
        match action {
            Action::Add => {
                let (vip, name) = (&self.config, &self.config.interface);
                let added = kernel::add(vip, interface.index)
                    .map_err(|error| explained(&error, &format!("cannot add {vip} to {name}")))?;
                self.ours.push(added);
                self.shown.added_total += 1;
            }
            Action::Remove => {
                self.remove()?;
                self.shown.removed_total += 1;
            }
            // The address works without an announcement, only later for some clients.
            Action::Announce => {
                if self.send(Announcer::announce, interface) {
                    self.shown.announced_at = Some(now);
                }
            }
            Action::Ask => {
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
            Change::RemovedLeftover => tracing::warn!(
                target: DECISIONS,
                "vip {name}: an earlier pgsteer left {vip} on {interface}; it is removed: {why}"
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

/// Returns the address on its interface, with each of its prefixes, if pgsteer added it.
///
/// # Errors
/// The kernel does not show its addresses.
fn of_pgsteer(vip: &VipConfig) -> Result<Vec<Found>, String> {
    let doing = format!("cannot look for {vip} on {}", vip.interface);
    let unread = |error: io::Error| explained(&error, &doing);
    let Some(index) = interface::index_of(&vip.interface).map_err(unread)? else {
        return Ok(Vec::new());
    };
    let mut found = kernel::addresses().map_err(unread)?;
    found.retain(|found| found.is_ours && found.address == vip.address && found.index == index);
    Ok(found)
}

/// The interface, and the address on it.
#[derive(Debug)]
struct Place {
    interface: Interface,
    /// The address with the mark of pgsteer, once for each prefix.
    ours: Vec<Found>,
    /// The address without this mark.
    foreign: Option<Found>,
}

impl Place {
    fn presence(&self) -> Presence {
        match (self.ours.is_empty(), self.foreign) {
            (false, _) => Presence::Ours,
            (true, Some(_)) => Presence::Foreign,
            (true, None) => Presence::Absent,
        }
    }
}

/// Why there is no [`Place`].
enum Unplaced {
    /// The address is not on the interface, and cannot be added.
    Absent(String),
    /// The kernel does not show its interfaces or addresses.
    Unknown(String),
}

/// Finds the interface, and the address on it.
fn place(vip: &VipConfig, addresses: &io::Result<Vec<Found>>) -> Result<Place, Unplaced> {
    let name = &vip.interface;
    let interface = interface::find(name)
        .map_err(|error| Unplaced::Unknown(explained(&error, "cannot read the interfaces")))?
        .ok_or_else(|| Unplaced::Absent(format!("there is no interface {name} on this machine")))?;
    let addresses = addresses.as_ref().map_err(|error| {
        Unplaced::Unknown(explained(error, "cannot read the addresses of this machine"))
    })?;
    let same = addresses.iter().filter(|found| found.address == vip.address);
    let (here, elsewhere): (Vec<Found>, Vec<Found>) =
        same.partition(|found| found.index == interface.index);
    if let (true, Some(elsewhere)) = (here.is_empty(), elsewhere.first()) {
        let other = interface::name_of(elsewhere.index);
        let trouble = format!("{} is on {other} already; remove it there", vip.address);
        return Err(Unplaced::Absent(trouble));
    }
    let (ours, foreign): (Vec<Found>, Vec<Found>) =
        here.into_iter().partition(|found| found.is_ours);
    Ok(Place { interface, ours, foreign: foreign.first().copied() })
}

/// The message about an address that another program added.
fn foreign(vip: &VipConfig, found: Found) -> String {
    let (address, prefix, interface) = (found.address, found.prefix, &vip.interface);
    format!(
        "{address}/{prefix} is on {interface}, and pgsteer did not add it, so pgsteer does not touch it; if it is \
         the machine's own address, choose another one for [vip]; otherwise remove it with `ip address del \
         {address}/{prefix} dev {interface}`"
    )
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
pub fn explained(error: &io::Error, doing: &str) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; pgsteer needs CAP_NET_ADMIN and CAP_NET_RAW (docs/VIP.md, \"systemd\")"
        }
        _ => "",
    };
    format!("{doing}: {error}{remedy}")
}
