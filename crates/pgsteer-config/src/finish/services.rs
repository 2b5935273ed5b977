//! The services: each with what it needs, and nothing that its role gives no meaning to.

use std::collections::BTreeMap;

use pgsteer_core::claim::Role;
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::settings::ServiceConfig;

use super::count;
use crate::conflict::Conflict;
use crate::draft::{Draft, Field, ServiceDraft};
use crate::error::{ConfigErrors, Place};
use crate::limits::SERVICES_MAX;

/// The services as meant; nothing where an error keeps one from being known.
pub fn finish(
    draft: &Draft,
    errors: &mut ConfigErrors,
) -> Option<BTreeMap<ServiceName, ServiceConfig>> {
    let given = draft.services.given()?;
    check_count(given.value.len(), &given.place, errors);
    let mut services = BTreeMap::new();
    let mut complete = true;
    for (name, service) in &given.value {
        check_role_fits(name, service, errors);
        check_pooler(service, errors);
        check_lag_can_be_known(draft, name, service, errors);
        if draft.is_listed() {
            check_listed(draft, name, service, errors);
        }
        match finish_one(name, service, errors) {
            Some(meant) => drop(services.insert(name.clone(), meant)),
            None => complete = false,
        }
    }
    complete.then_some(services)
}

fn finish_one(
    name: &ServiceName,
    draft: &ServiceDraft,
    errors: &mut ConfigErrors,
) -> Option<ServiceConfig> {
    let listen = draft.listen_meant(name);
    if listen.is_none() && draft.listen.is_absent() {
        let example = "listen = \"0.0.0.0:5002\"";
        errors.push(draft.place.clone(), Conflict::Missing { key: "listen", example });
    }
    let role = draft.role_meant(name);
    if role.is_none() && draft.role.is_absent() {
        let example = "role = \"replica\"";
        errors.push(draft.place.clone(), Conflict::Missing { key: "role", example });
    }
    let default = ServiceConfig::new(listen?.value, role?);
    Some(ServiceConfig {
        hold: draft.hold.or(default.hold),
        lag_bytes_max: draft.lag_bytes.clone().value(),
        lag_max: draft.lag.clone().value(),
        fallback_primary: draft.fallback.or(default.fallback_primary),
        tags: draft.tags.or(BTreeMap::new()),
        pooler_port: draft.pooler_port.clone().value(),
        pooler_down: draft.pooler_down.or(default.pooler_down),
        connect_timeout: draft.connect_timeout.or(default.connect_timeout),
        member_sessions_max: count(&draft.member_sessions_max),
        sessions_max: count(&draft.sessions_max),
        stick: draft.stick.or(default.stick),
        on_promotion: draft.on_promotion.or(default.on_promotion),
        ..default
    })
}

fn check_count(found: usize, place: &Place, errors: &mut ConfigErrors) {
    let max = SERVICES_MAX;
    if found == 0 {
        let example = "[services.write]; without [services] there are write and read";
        errors.push(place.clone(), Conflict::Empty { example });
    }
    if found > max {
        errors.push(place.clone(), Conflict::TooMany { found, max });
    }
}

/// Lag and fallback are notions of replicas.
fn check_role_fits(name: &ServiceName, service: &ServiceDraft, errors: &mut ConfigErrors) {
    let Some(role) = service.role_meant(name).filter(|role| *role != Role::Replica) else {
        return;
    };
    let lag_bytes = service.lag_bytes.given().map(|given| &given.place);
    let lag = service.lag.given().map(|given| &given.place);
    for place in [lag_bytes, lag].into_iter().flatten() {
        errors.push(place.clone(), Conflict::LagOnRole(role));
    }
    if let Some(fallback) = service.fallback.given().filter(|given| given.value) {
        errors.push(fallback.place.clone(), Conflict::FallbackOnRole(role));
    }
    if let Some(given) = service.on_promotion.given() {
        errors.push(given.place.clone(), Conflict::PromotionOnRole(role));
    }
}

/// How far a replica is behind in time SQL alone tells, so without a login the limit would shut
/// the service for ever. That members who are listed need a login is said already.
fn check_lag_can_be_known(
    draft: &Draft,
    name: &ServiceName,
    service: &ServiceDraft,
    errors: &mut ConfigErrors,
) {
    let is_for_replicas = service.role_meant(name) == Some(Role::Replica);
    let lacks_login = draft.check.is_absent() && !draft.is_listed();
    if let Some(given) = service.lag.given().filter(|_| is_for_replicas && lacks_login) {
        errors.push(given.place.clone(), Conflict::LagTimeWithoutLogin);
    }
}

/// What to do without a pooler is said where there is one.
fn check_pooler(service: &ServiceDraft, errors: &mut ConfigErrors) {
    if let (Some(given), true) = (service.pooler_down.given(), service.pooler_port.is_absent()) {
        errors.push(given.place.clone(), Conflict::PoolerDownWithoutPort);
    }
}

/// SQL tells primary from replica and nothing more.
fn check_listed(
    draft: &Draft,
    name: &ServiceName,
    service: &ServiceDraft,
    errors: &mut ConfigErrors,
) {
    let role = service.role_meant(name);
    if let (Some(Role::StandbyLeader), Some(given)) = (role, service.role.given()) {
        errors.push(given.place.clone(), Conflict::StandbyLeaderWithoutPatroni);
    }
    if let Some(tags) = service.tags.given().filter(|given| !given.value.is_empty()) {
        errors.push(tags.place.clone(), Conflict::TagsWithoutPatroni);
    }
    if let (Some(Role::Replica), Some(only)) = (role, only_member(draft))
        && !falls_back(&service.fallback)
    {
        errors.push(service.place.clone(), Conflict::NoReplica { only });
    }
}

fn only_member(draft: &Draft) -> Option<MemberName> {
    match draft.members.given()?.value.as_slice() {
        [only] => Some(only.name.clone()),
        _ => None,
    }
}

/// The service falls back to the primary, or somebody tried to say so.
fn falls_back(fallback: &Field<bool>) -> bool {
    fallback.is_wrong() || fallback.or(false)
}
