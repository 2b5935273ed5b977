//! Orders of an operator: which members get no new sessions, for how long, and why.
//!
//! An order names a member and applies to the server that has that name at the time: a member that leaves and
//! returns is still drained. It has one effect, that the member's gates do not open
//! ([`crate::gate::Gate::HeldBack`]). Existing sessions continue, and the member is still judged, so its gates
//! open at once when the order ends.
//!
//! The gates of a leader (a service that requires the primary or the standby leader, and the health
//! checks for it) are drained only by an order that was given with `--force`. A replica that is
//! drained and then promoted takes writes, because otherwise an order for readers could leave the cluster
//! without a primary in the next failover.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::claim::Role;
use crate::gate_key::GateKey;
use crate::names::{MemberName, ServiceName, listed};
use crate::text::clean_to;
use crate::time::Moment;

/// The maximum number of orders at one time.
pub const ORDERS_MAX: usize = 100;

/// The maximum length of the reason of an order, and of the name of its author, in characters.
pub const ORDER_TEXT_CHARS_MAX: usize = 80;

/// The member that is drained, and for which service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrainTarget {
    /// The member.
    pub member: MemberName,
    /// The service; none for all services and for the health checks.
    pub service: Option<ServiceName>,
}

/// A text of an operator: one line, without hidden characters, of at most [`ORDER_TEXT_CHARS_MAX`]
/// characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderText(Arc<str>);

/// When an order expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    /// The moment.
    pub at: Moment,
    /// The same as a time of day, for people.
    pub shown: OrderText,
}

/// A member gets no new sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// The member and the service.
    pub target: DrainTarget,
    /// When the order expires; none if it lasts until it is withdrawn.
    pub until: Option<Until>,
    /// The operator's reason.
    pub why: Option<OrderText>,
    /// The operator.
    pub by: OrderText,
    /// The time of day at which the order was given.
    pub since: OrderText,
    /// It may leave a service without a member, and applies to the gates of a leader.
    pub is_forced: bool,
}

/// What an operator can order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorOrder {
    /// Drain a member, or replace the order that drains it.
    Drain(DrainOrder),
    /// Withdraw the order for a service; without a service, all orders for the member.
    Undrain {
        /// The member and the service.
        target: DrainTarget,
        /// The operator.
        by: OrderText,
    },
}

/// Why an order is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OrderError {
    /// No member has that name.
    #[error("there is no member {member}; {}", known_members(.known))]
    UnknownMember {
        /// The name.
        member: MemberName,
        /// The known members.
        known: Vec<MemberName>,
    },
    /// No service has that name.
    #[error("there is no service {service}; {}", known_services(.known))]
    UnknownService {
        /// The name.
        service: ServiceName,
        /// The configured services.
        known: Vec<ServiceName>,
    },
    /// The name is a second name of another member's server.
    #[error("{member} is the same server as {same_as}, which is used instead: name {same_as}")]
    SameServer {
        /// The name.
        member: MemberName,
        /// The member that serves.
        same_as: MemberName,
    },
    /// A service would have no member.
    #[error(
        "without {member} no member is open for {}: new clients would wait and be refused; add --force \
         to drain it all the same",
        .unserved.join(", ")
    )]
    LeavesNone {
        /// The member.
        member: MemberName,
        /// The services.
        unserved: Vec<String>,
    },
    /// There are too many orders.
    #[error("there are {ORDERS_MAX} orders already: withdraw one with `pgsteer undrain`")]
    TooMany,
    /// There is nothing to withdraw.
    #[error("no order drains {target}; {}", known_orders(.known))]
    NoSuchOrder {
        /// The member and the service.
        target: DrainTarget,
        /// The orders that there are.
        known: Vec<DrainTarget>,
    },
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderEnd {
    /// Its time is over.
    Expired,
    /// An operator withdrew it.
    Withdrawn {
        /// The operator.
        by: OrderText,
    },
}

/// All orders in force, by member and service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders(BTreeMap<DrainTarget, Arc<DrainOrder>>);

impl OrderText {
    /// Returns `text` cleaned and cut.
    pub fn new(text: &str) -> OrderText {
        OrderText(Arc::from(&*clean_to(text.trim(), ORDER_TEXT_CHARS_MAX)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for DrainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{} for service {service}", self.member),
            None => write!(f, "{}", self.member),
        }
    }
}

impl fmt::Display for DrainOrder {
    /// Writes the order without its member: `drained by root until 2026-11-28T05:00:00Z: disk`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "drained by {} ", self.by)?;
        match &self.until {
            Some(until) => write!(f, "until {}", until.shown)?,
            None => f.write_str("until it is withdrawn")?,
        }
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

impl DrainOrder {
    /// Returns true if the order applies to a gate for `key`, which requires `role`.
    fn applies_to(&self, key: &GateKey, role: Role) -> bool {
        let is_of_service = match (&self.target.service, key) {
            (None, _) => true,
            (Some(service), GateKey::Service(name)) => service == name,
            (Some(_), GateKey::Role(_) | GateKey::Pooled(_)) => false,
        };
        let is_of_leader = matches!(role, Role::Primary | Role::StandbyLeader);
        is_of_service && (self.is_forced || !is_of_leader)
    }
}

impl Orders {
    /// These orders. Above [`ORDERS_MAX`] the rest is dropped.
    pub fn of(all: impl IntoIterator<Item = DrainOrder>) -> Orders {
        let named = |order: DrainOrder| (order.target.clone(), Arc::new(order));
        Orders(all.into_iter().take(ORDERS_MAX).map(named).collect())
    }

    /// All orders, by member and service.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<DrainOrder>> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The orders for `member`.
    pub fn of_member(&self, member: &MemberName) -> impl Iterator<Item = &Arc<DrainOrder>> {
        self.0.values().filter(move |order| order.target.member == *member)
    }

    /// The order that drains `member` for the service `service`, which requires `role`. Of several the
    /// one that lasts longest.
    pub fn draining(
        &self,
        member: &MemberName,
        service: &ServiceName,
        role: Role,
    ) -> Option<&Arc<DrainOrder>> {
        self.draining_gate(member, &GateKey::Service(service.clone()), role)
    }

    /// Same as [`Orders::draining`], for any gate.
    pub(crate) fn draining_gate(
        &self,
        member: &MemberName,
        key: &GateKey,
        role: Role,
    ) -> Option<&Arc<DrainOrder>> {
        let lasts = |order: &&Arc<DrainOrder>| match &order.until {
            Some(until) => (false, until.at),
            None => (true, Moment::START),
        };
        self.of_member(member).filter(|order| order.applies_to(key, role)).max_by_key(lasts)
    }

    /// Adds an order, or replaces the one with the same target. Above [`ORDERS_MAX`] it is not added.
    pub(crate) fn insert(&mut self, order: DrainOrder) -> Result<(), OrderError> {
        if self.0.len() >= ORDERS_MAX && !self.0.contains_key(&order.target) {
            return Err(OrderError::TooMany);
        }
        self.0.insert(order.target.clone(), Arc::new(order));
        Ok(())
    }

    /// Removes the order with that target; without a service, all orders for the member.
    pub(crate) fn withdraw(
        &mut self,
        target: &DrainTarget,
    ) -> Result<Vec<Arc<DrainOrder>>, OrderError> {
        let is_meant = |it: &DrainTarget| match &target.service {
            Some(_) => it == target,
            None => it.member == target.member,
        };
        let ended = self.take(|order| is_meant(&order.target));
        if ended.is_empty() {
            let known = self.0.keys().cloned().collect();
            return Err(OrderError::NoSuchOrder { target: target.clone(), known });
        }
        Ok(ended)
    }

    /// Removes the order with exactly that target, if there is one.
    pub(crate) fn remove(&mut self, target: &DrainTarget) {
        self.0.remove(target);
    }

    /// Removes and returns the orders whose time is over.
    pub(crate) fn expire(&mut self, now: Moment) -> Vec<Arc<DrainOrder>> {
        self.take(|order| order.until.as_ref().is_some_and(|until| until.at <= now))
    }

    /// When the next order expires.
    pub(crate) fn next_expiry(&self) -> Option<Moment> {
        self.0.values().filter_map(|order| Some(order.until.as_ref()?.at)).min()
    }

    fn take(&mut self, is_meant: impl Fn(&DrainOrder) -> bool) -> Vec<Arc<DrainOrder>> {
        let taken = self.0.values().filter(|order| is_meant(order)).cloned().collect();
        self.0.retain(|_, order| !is_meant(order));
        taken
    }
}

fn known_members(known: &[MemberName]) -> String {
    match known.is_empty() {
        true => "no member is known yet".to_owned(),
        false => format!("the members are {}", listed(known)),
    }
}

fn known_services(known: &[ServiceName]) -> String {
    let names: Vec<&str> = known.iter().map(ServiceName::as_str).collect();
    match names.is_empty() {
        true => "no service is configured".to_owned(),
        false => format!("the services are {}", names.join(", ")),
    }
}

fn known_orders(known: &[DrainTarget]) -> String {
    let known: Vec<String> = known.iter().map(DrainTarget::to_string).collect();
    match known.is_empty() {
        true => "there are no orders".to_owned(),
        false => format!("the orders drain {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(member: &str, service: Option<&str>, until_s: Option<u64>) -> DrainOrder {
        let service = service.map(|name| ServiceName::new(name).unwrap());
        DrainOrder {
            target: DrainTarget { member: MemberName::new(member).unwrap(), service },
            until: until_s.map(|s| Until {
                at: Moment::from_millis(s * 1_000),
                shown: OrderText::new(&format!("{s} s")),
            }),
            why: Some(OrderText::new("disk")),
            by: OrderText::new("ann"),
            since: OrderText::new("today"),
            is_forced: false,
        }
    }

    fn orders(all: impl IntoIterator<Item = DrainOrder>) -> Orders {
        let mut orders = Orders::default();
        all.into_iter().for_each(|order| orders.insert(order).unwrap());
        orders
    }

    fn n1() -> MemberName {
        MemberName::new("n1").unwrap()
    }

    #[test]
    fn an_order_for_a_service_leaves_the_other_services_and_the_health_checks() {
        let orders = orders([order("n1", Some("read"), None)]);
        let read = ServiceName::new("read").unwrap();
        let other = ServiceName::new("reports").unwrap();
        assert!(orders.draining(&n1(), &read, Role::Replica).is_some());
        assert!(orders.draining(&n1(), &other, Role::Replica).is_none());
        let replica = GateKey::Role(Role::Replica);
        assert!(orders.draining_gate(&n1(), &replica, Role::Replica).is_none());
    }

    #[test]
    fn only_a_forced_order_drains_a_leader() {
        let write = ServiceName::new("write").unwrap();
        for is_forced in [false, true] {
            let orders = orders([DrainOrder { is_forced, ..order("n1", None, None) }]);
            for role in [Role::Primary, Role::StandbyLeader] {
                assert_eq!(orders.draining(&n1(), &write, role).is_some(), is_forced);
            }
            assert!(orders.draining(&n1(), &write, Role::Replica).is_some());
        }
    }

    #[test]
    fn of_two_orders_the_longer_one_counts() {
        let read = ServiceName::new("read").unwrap();
        let until = |orders: &Orders| {
            let order = orders.draining(&n1(), &read, Role::Replica).unwrap();
            order.until.as_ref().map(|until| until.shown.to_string())
        };
        let mut both = orders([order("n1", None, Some(5)), order("n1", Some("read"), Some(9))]);
        assert_eq!(until(&both).as_deref(), Some("9 s"));
        assert_eq!(both.next_expiry(), Some(Moment::from_millis(5_000)));
        both.insert(order("n1", None, None)).unwrap();
        assert_eq!(until(&both), None);
        assert_eq!(both.expire(Moment::from_millis(9_000)).len(), 1);
        assert_eq!(both.len(), 1);
    }

    #[test]
    fn the_number_of_orders_is_limited_and_one_can_still_be_replaced() {
        let name = |index: usize| format!("n{index}");
        let mut full = orders((0..ORDERS_MAX).map(|index| order(&name(index), None, None)));
        assert_eq!(full.insert(order("other", None, None)), Err(OrderError::TooMany));
        assert_eq!(full.insert(order("n1", None, Some(1))), Ok(()));
    }

    #[test]
    fn undrain_without_a_service_withdraws_all_orders_of_the_member() {
        let mut both = orders([order("n1", None, None), order("n1", Some("read"), None)]);
        let other = order("n2", Some("read"), None).target;
        let error = both.withdraw(&other).unwrap_err().to_string();
        assert_eq!(
            error,
            "no order drains n2 for service read; the orders drain n1, n1 for service read"
        );
        assert_eq!(both.withdraw(&order("n1", None, None).target).unwrap().len(), 2);
        assert!(both.is_empty());
    }

    #[test]
    fn a_text_of_an_operator_is_one_short_line() {
        let text = OrderText::new(&format!(" disk\n\u{1b}[31m{}", "x".repeat(500)));
        assert!(text.as_str().starts_with("disk\\n"));
        assert!(text.as_str().chars().count() <= ORDER_TEXT_CHARS_MAX);
    }
}
