//! Orders of an operator: accepts or refuses them, and ends them in time.

use std::collections::BTreeSet;

use super::Engine;
use crate::event::EventKind;
use crate::gate::Gate;
use crate::gate_key::GateKey;
use crate::names::{MemberName, ServiceName};
use crate::orders::{DrainOrder, DrainTarget, OperatorOrder, OrderEnd, OrderError, Orders};
use crate::time::Moment;

impl Engine {
    /// Applies an order of an operator.
    ///
    /// # Errors
    /// The order is refused, and nothing has changed.
    pub fn handle_order(&mut self, order: OperatorOrder, now: Moment) -> Result<(), OrderError> {
        let events = match order {
            OperatorOrder::Drain(order) => self.drain(order, now)?,
            OperatorOrder::Undrain { target, by } => {
                let ended = self.orders.withdraw(&target)?.into_iter();
                let event = |order| EventKind::Undrained {
                    order,
                    end: OrderEnd::Withdrawn { by: by.clone() },
                };
                ended.map(event).collect()
            }
        };
        self.record(events, now);
        self.turn(now);
        Ok(())
    }

    /// Replaces all orders by those of an earlier run. They were accepted then, so the cluster's present state
    /// refuses none.
    pub fn restore_orders(&mut self, orders: impl IntoIterator<Item = DrainOrder>, now: Moment) {
        self.orders = Orders::of(orders);
        self.turn(now);
    }

    /// Ends the orders whose time is over.
    pub(super) fn expire_orders(&mut self, now: Moment) {
        let expired = self.orders.expire(now).into_iter();
        let events: Vec<EventKind> =
            expired.map(|order| EventKind::Undrained { order, end: OrderEnd::Expired }).collect();
        self.record(events, now);
    }

    fn drain(&mut self, order: DrainOrder, now: Moment) -> Result<Vec<EventKind>, OrderError> {
        self.check_target(&order.target)?;
        let unserved = self.unserved_with(&order, now)?;
        if !order.is_forced && !unserved.is_empty() {
            return Err(OrderError::LeavesNone { member: order.target.member, unserved });
        }
        let target = order.target.clone();
        self.orders.insert(order)?;
        let taken = self.orders.of_member(&target.member).find(|it| it.target == target);
        Ok(taken.map(|order| EventKind::Drained { order: order.clone() }).into_iter().collect())
    }

    fn check_target(&self, target: &DrainTarget) -> Result<(), OrderError> {
        let members = self.roster.members();
        let Some(member) = members.get(&target.member) else {
            let known: Vec<MemberName> = members.keys().cloned().collect();
            return Err(OrderError::UnknownMember { member: target.member.clone(), known });
        };
        if let Some(same_as) = &member.same_as {
            let (member, same_as) = (target.member.clone(), same_as.clone());
            return Err(OrderError::SameServer { member, same_as });
        }
        let Some(service) = &target.service else { return Ok(()) };
        if self.gate_configs.contains_key(&GateKey::Service(service.clone())) {
            return Ok(());
        }
        let known: Vec<ServiceName> = self.services().cloned().collect();
        Err(OrderError::UnknownService { service: service.clone(), known })
    }

    fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.gate_configs.keys().filter_map(|key| match key {
            GateKey::Service(name) => Some(name),
            GateKey::Role(_) | GateKey::Pooled(_) => None,
        })
    }

    /// The services, or the roles if there are no services, that have an open member without `order` and
    /// would have none with it.
    fn unserved_with(&self, order: &DrainOrder, now: Moment) -> Result<Vec<String>, OrderError> {
        let mut without = self.orders.clone();
        without.remove(&order.target);
        let mut with = without.clone();
        with.insert(DrainOrder { is_forced: true, ..order.clone() })?;
        let after = self.served_under(&with, now);
        Ok(self.served_under(&without, now).difference(&after).cloned().collect())
    }

    /// The services, or the roles if there are no services, that have an open member under `orders`.
    fn served_under(&self, orders: &Orders, now: Moment) -> BTreeSet<String> {
        let has_services = self.services().next().is_some();
        let turned = self.turn_all_gates(orders, self.snapshot.generation, now);
        let served = turned.into_iter().filter(|(_, gates)| gates.values().any(Gate::is_open));
        let name = |key: GateKey| match key {
            GateKey::Service(name) => Some(format!("service {name}")),
            GateKey::Role(role) => (!has_services).then(|| format!("the role {role}")),
            GateKey::Pooled(_) => None,
        };
        served.filter_map(|(key, _)| name(key)).collect()
    }
}
