//! Listeners: checks that no two use the same address and port.

use std::net::{IpAddr, SocketAddr};

use super::{agent, http, services};
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::Given;
use crate::key::Key;
use crate::kinds::ListenOrNone;
use crate::limits::SERVICES_MAX;
use crate::origin::Origin;
use crate::purpose::Purpose;
use crate::written::Draft;

/// Reports each listener whose address and port another listener already uses.
pub fn check(draft: &Draft, errors: &mut ConfigErrors) {
    let mut seen: Vec<Given<SocketAddr>> = Vec::new();
    let doors = services(draft).filter(|_| draft.purpose != Purpose::Answer);
    for listener in doors.chain(http(draft)).chain(agent(draft)) {
        if let Some(other) = seen.iter().find(|s| overlap(s.value, listener.value)) {
            report(&listener, other, errors);
        }
        seen.push(listener);
    }
}

/// Reports a conflict at the written address and not at a default, because the operator can change
/// it.
fn report(one: &Given<SocketAddr>, other: &Given<SocketAddr>, errors: &mut ConfigErrors) {
    let (at, with) = match one.origin {
        Origin::Default(_) => (other, one),
        _ => (one, other),
    };
    let other = with.origin.clone();
    errors.push(at.origin.clone(), Conflict::SameListen { other });
}

fn services(draft: &Draft) -> impl Iterator<Item = Given<SocketAddr>> {
    let services = draft.services.given().into_iter();
    services
        .flat_map(|given| &given.value)
        .filter_map(|(name, service)| services::listen_meant(name, &service.value))
        .take(SERVICES_MAX)
}

fn http(draft: &Draft) -> Option<Given<SocketAddr>> {
    listener(draft, &http::LISTEN)
}

fn agent(draft: &Draft) -> Option<Given<SocketAddr>> {
    draft.section(agent::SECTION).given()?;
    listener(draft, &agent::LISTEN)
}

fn listener(draft: &Draft, key: &Key<ListenOrNone>) -> Option<Given<SocketAddr>> {
    let listen = draft.get(key);
    if listen.is_absent() {
        let origin = Origin::Default(format!("{}.{}", key.section, key.name));
        return Some(Given { value: key.kind.usual, origin });
    }
    let given = listen.given()?;
    given.value.map(|value| Given { value, origin: given.origin.clone() })
}

/// Returns true if the kernel would give the port to only one of the two. `[::]` includes IPv4.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

#[cfg(test)]
mod tests {
    use super::overlap;

    fn overlaps(a: &str, b: &str) -> bool {
        let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(overlap(a, b), overlap(b, a));
        overlap(a, b)
    }

    #[test]
    fn all_addresses_overlap_each_of_them() {
        assert!(overlaps("0.0.0.0:1", "127.0.0.1:1"));
        assert!(overlaps("[::]:1", "127.0.0.1:1"));
        assert!(overlaps("[::]:1", "0.0.0.0:1"));
        assert!(overlaps("[::]:1", "[::1]:1"));
    }

    #[test]
    fn another_port_or_address_does_not() {
        assert!(!overlaps("0.0.0.0:1", "0.0.0.0:2"));
        assert!(!overlaps("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!overlaps("0.0.0.0:1", "[::1]:1"));
    }
}
