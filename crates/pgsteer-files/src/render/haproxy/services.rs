//! The services as HAProxy's frontends: their conditions for a member, and the limits of a profile.

use serde::Serialize;

use super::{is_word, millis};
use crate::render::label::labels;
use crate::render::refusal::Refusal;
use crate::render::{Profile, escape};
use pgsteer_core::claim::Role;
use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::{Config, PoolerDown, ServiceConfig};

/// A service for the templates.
#[derive(Serialize)]
pub struct Service {
    name: String,
    label: String,
    listen: String,
    port: u16,
    role: &'static str,
    connect_ms: u64,
    pooler_port: Option<u16>,
    /// Patroni's health check.
    probe: String,
    /// The question to the agent whether a member is fit although its pooler is down.
    direct: String,
    /// The service that is used while there is no replica.
    fallback: Option<String>,
    /// That service has a pooler.
    fallback_pooled: bool,
}

/// Refuses conditions that a profile cannot test, instead of silently omitting them.
pub fn check_services(config: &Config, profile: Profile) -> Result<(), Refusal> {
    for (name, service) in &config.services {
        let goes_past = service.pooler_port.is_some() && service.pooler_down == PoolerDown::Bypass;
        // Behind profile `pgsteer` it is pgsteer that leads past the pooler.
        if goes_past && !matches!(profile, Profile::AgentBypass | Profile::Pgsteer) {
            return Err(Refusal::NoWayPast { service: name.clone(), profile });
        }
        let refuse = |what| Refusal::CannotTell { service: name.clone(), profile, what };
        let is_limited = service.lag_bytes_max.is_some() || service.lag_max.is_some();
        match profile {
            Profile::Sql if is_limited => return Err(refuse("how far a replica is behind")),
            Profile::Sql if !service.tags.is_empty() => return Err(refuse("tags")),
            Profile::Sql if service.role == Role::StandbyLeader => {
                return Err(refuse("a standby leader from a replica"));
            }
            Profile::Httpchk if service.lag_max.is_some() => {
                return Err(refuse("how far a replica is behind in time"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns all services that `profile` supports, those of the primary first.
pub fn services(config: &Config, profile: Profile) -> Result<Vec<Service>, Refusal> {
    let mut services: Vec<(&ServiceName, &ServiceConfig)> = config.services.iter().collect();
    services.sort_by_key(|(name, service)| (service.role, *name));
    let labels = labels(services.iter().map(|(name, _)| name.as_str()));
    let primary = services.iter().position(|(_, service)| service.role == Role::Primary);
    let fallback = primary.and_then(|at| labels.get(at)).cloned();
    let fallback_pooled =
        primary.and_then(|at| services.get(at)).is_some_and(|(_, s)| s.pooler_port.is_some());
    if profile == Profile::AgentBypass && services.iter().all(|(_, s)| s.pooler_port.is_none()) {
        return Err(Refusal::NoPooler);
    }
    services
        .iter()
        .zip(labels)
        .map(|((name, service), label)| {
            let fallback = match (service.fallback_primary, &fallback) {
                (false, _) => None,
                (true, Some(label)) => Some(label.clone()),
                (true, None) => {
                    let what = "where to fall back to without a service for the primary";
                    let service = (*name).clone();
                    return Err(Refusal::CannotTell { service, profile, what });
                }
            };
            let direct = match profile {
                Profile::AgentBypass if service.pooler_port.is_some() => {
                    direct(config, name, service)?
                }
                _ => name.to_string(),
            };
            let is_asked = matches!(profile, Profile::Agent | Profile::AgentBypass);
            if is_asked && !is_word(name.as_str()) {
                let why =
                    "the agent's line is split at blanks, so the name of a service is one word";
                return Err(Refusal::Unwritable { what: "the name of a service", why });
            }
            Ok(Service {
                name: name.to_string(),
                label,
                listen: service.listen.to_string(),
                port: service.listen.port(),
                role: service.role.as_str(),
                connect_ms: millis(service.connect_timeout),
                pooler_port: service.pooler_port,
                probe: probe(service),
                direct,
                fallback,
                fallback_pooled,
            })
        })
        .collect()
}

/// Returns the question to the agent about a member whose pooler is down: another service of that
/// role without a pooler, or the corresponding health check of Patroni.
fn direct(config: &Config, name: &ServiceName, service: &ServiceConfig) -> Result<String, Refusal> {
    let is_twin = |other: &ServiceConfig| {
        (other.role, other.pooler_port) == (service.role, None)
            && other.lag_bytes_max == service.lag_bytes_max
            && other.lag_max == service.lag_max
            && other.tags == service.tags
    };
    if let Some((twin, _)) = config.services.iter().find(|(_, other)| is_twin(other)) {
        return Ok(twin.to_string());
    }
    let asks_pooler = config.agent.as_ref().is_some_and(|agent| agent.pooler_port.is_some());
    if asks_pooler || service.lag_max.is_some() {
        return Err(Refusal::NoDirectQuestion(name.clone()));
    }
    Ok(probe(service).trim_start_matches('/').to_owned())
}

/// Returns Patroni's health check for the condition of the service.
fn probe(service: &ServiceConfig) -> String {
    let path = match service.role {
        Role::Primary | Role::Unknown => "/primary",
        Role::StandbyLeader => "/standby-leader",
        Role::Replica => "/replica",
    };
    let lag = service.lag_bytes_max.map(|bytes| format!("lag={}", lag_text(bytes)));
    let tags = service
        .tags
        .iter()
        .map(|(tag, value)| format!("tag_{}={}", escape::uri(tag), escape::uri(value)));
    let query: Vec<String> = lag.into_iter().chain(tags).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

fn lag_text(bytes: u64) -> String {
    pgsteer_core::units::size_text(bytes)
}
