//! Places: which members are the same server (invariant 12).
//!
//! A server is its endpoint, not its name. Two members are the same server if they share the
//! PostgreSQL endpoint or the REST endpoint. Hosts are compared as written and by
//! their resolved addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::claim::Found;
use crate::judge::{Member, Members};
use crate::names::{Endpoint, MemberName};

/// Returns true if both have the same PostgreSQL or REST endpoint, as written.
pub(super) fn is_same_place(one: &Found, other: &Found, ports_known: bool) -> bool {
    let postgres = ports_known
        && one.postgres.port() == other.postgres.port()
        && one.postgres.host().eq_ignore_ascii_case(other.postgres.host());
    let rest = match (&one.patroni_url, &other.patroni_url) {
        (Some(one), Some(other)) => rest_place(one).eq_ignore_ascii_case(rest_place(other)),
        _ => false,
    };
    postgres || rest
}

/// Returns what follows the scheme of a base URL: host, port and path.
pub(super) fn rest_place(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/')
}

/// Returns the host of a base URL, and its port and path.
fn rest_host_and_rest(url: &str) -> Option<(&str, &str)> {
    let place = rest_place(url);
    let authority_end = place.find('/').unwrap_or(place.len());
    let colon = place[..authority_end].rfind(':')?;
    let host = place[..colon].trim_start_matches('[').trim_end_matches(']');
    Some((host, &place[colon + 1..]))
}

/// Returns true if both members are the same server.
pub(super) fn is_same_server(one: &Member, other: &Member) -> bool {
    let ports_known = !one.is_url_only && !other.is_url_only;
    is_same_place(&one.found, &other.found, ports_known)
        || is_same_postgres(one, other)
        || (has_addresses_of(one, other) && has_rest_port_of(one, other))
}

/// Returns true if both members have the same PostgreSQL endpoint, as written or by its addresses.
pub(super) fn is_same_postgres(one: &Member, other: &Member) -> bool {
    let (one_at, other_at) = (&one.found.postgres, &other.found.postgres);
    !one.is_url_only
        && !other.is_url_only
        && one_at.port() == other_at.port()
        && (one_at.host().eq_ignore_ascii_case(other_at.host()) || has_addresses_of(one, other))
}

/// Returns true if each address of one host is also an address of the other. One address in common is
/// not enough: two hosts may share a dead or local one (`::1`) and differ in the one that works.
fn has_addresses_of(one: &Member, other: &Member) -> bool {
    is_one_part_of_other(addresses(one), addresses(other))
}

fn is_one_part_of_other(one: Vec<IpAddr>, other: Vec<IpAddr>) -> bool {
    let (few, many) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    !few.is_empty() && few.iter().all(|address| many.contains(address))
}

/// Compares a member's PostgreSQL endpoint with another one, which resolves to `addresses`: empty if that is
/// unknown. None if it cannot be known yet.
pub(super) fn is_at(member: &Member, endpoint: &Endpoint, resolved: &[IpAddr]) -> Option<bool> {
    let postgres = &member.found.postgres;
    if postgres.port() != endpoint.port() {
        return Some(false);
    }
    if postgres.host().eq_ignore_ascii_case(endpoint.host()) {
        return Some(true);
    }
    let own = addresses(member);
    let other = endpoint.ip().map_or_else(|| resolved.to_vec(), |address| vec![address]);
    match (own.is_empty(), other.is_empty()) {
        (true, _) => Some(false),
        (false, true) => None,
        (false, false) => Some(is_one_part_of_other(own, other)),
    }
}

/// The addresses of a member's host. An address needs no lookup.
fn addresses(member: &Member) -> Vec<IpAddr> {
    match member.found.postgres.ip() {
        Some(address) => vec![address],
        None => member.view.addresses().to_vec(),
    }
}

/// Returns true if both REST endpoints are on the host of their member's PostgreSQL, on the same
/// port and below the same path. Behind a gateway only the path distinguishes two members.
fn has_rest_port_of(one: &Member, other: &Member) -> bool {
    let port_and_path = |member: &Member| {
        let (host, rest) = rest_host_and_rest(member.found.patroni_url.as_deref()?)?;
        (host == member.found.postgres.host()).then(|| rest.to_owned())
    };
    port_and_path(one).is_some_and(|one| port_and_path(other).is_some_and(|other| one == other))
}

/// The members that are the same server as another one, each with the name of that one.
///
/// Within a group the preferred member is the listed one, then the one whose name the Patroni there
/// reports, then the one that was asked before, then the first by name.
pub(super) fn twins(members: &Members) -> BTreeMap<MemberName, MemberName> {
    let mut twins = BTreeMap::new();
    let mut left: Vec<&MemberName> = members.keys().collect();
    while let Some(first) = left.pop() {
        let mut group = vec![first];
        let mut index = 0;
        while let Some(of) = group.get(index).copied() {
            let (same, rest) =
                left.iter().partition(|name| is_same_server(&members[of], &members[**name]));
            left = rest;
            group.extend::<Vec<&MemberName>>(same);
            index += 1;
        }
        let Some(main) = main_of(&group, members) else { continue };
        let others = group.iter().filter(|name| **name != main);
        twins.extend(others.map(|name| ((*name).clone(), main.clone())));
    }
    twins
}

fn main_of<'a>(group: &[&'a MemberName], members: &Members) -> Option<&'a MemberName> {
    let reported = group.iter().filter_map(|name| members[*name].view.reported_name()).max();
    let reported = reported.map(|(_, name)| name);
    group.iter().copied().min_by_key(|name| {
        let member = &members[*name];
        let is_reported = reported.is_some_and(|reported| *reported == *name.as_str());
        let is_twin = member.same_as.is_some() || !member.view.was_asked();
        (!member.is_listed(), member.is_url_only, !is_reported, is_twin, *name)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::claim::{Claim, Fact};
    use crate::time::Moment;
    use crate::view::View;

    fn member(name: &str, postgres: &str, url: &str) -> Member {
        Member {
            found: Found {
                name: MemberName::new(name).unwrap(),
                postgres: Endpoint::parse(postgres, None).unwrap(),
                patroni_url: Some(Arc::from(url)),
            },
            left_at: None,
            same_as: None,
            also_at: Vec::new(),
            new_host: None,
            is_url_only: false,
            was_url_only: false,
            view: View::new(Moment::START),
        }
    }

    fn twins_of(members: Vec<Member>) -> Vec<(String, String)> {
        let members = members.into_iter().map(|member| (member.found.name.clone(), member));
        let twins = twins(&members.collect());
        twins.into_iter().map(|(one, main)| (one.to_string(), main.to_string())).collect()
    }

    fn resolved(mut member: Member, addresses: &str) -> Member {
        let addresses = addresses.split(' ').map(|address| address.parse().unwrap());
        let fact = Fact::Addresses(Ok(addresses.collect()));
        let claim = Claim { member: member.found.name.clone(), asked_at: Moment::START, fact };
        member.view.apply(claim, Moment::START);
        member
    }

    #[test]
    fn one_endpoint_is_one_server_whatever_its_names_are() {
        let pair = |postgres: &str, url: &str| {
            twins_of(vec![member("a", "h1:5432", "http://h1:8008"), member("b", postgres, url)])
        };
        let one = vec![("b".to_owned(), "a".to_owned())];
        assert_eq!(pair("h1:5432", "http://x:8008"), one);
        assert_eq!(pair("H1:5432", "http://x:8008"), one);
        assert_eq!(pair("h2:5432", "https://H1:8008/"), one);
        assert_eq!(pair("h1:5433", "http://h1:8009"), []);
        assert_eq!(pair("h2:5432", "http://h1:8008/b"), []);
    }

    #[test]
    fn hosts_that_differ_in_an_address_are_two_servers() {
        let pair = |of_a: &str, of_b: &str| {
            twins_of(vec![
                resolved(member("a", "h1:5432", "http://h1:8008"), of_a),
                resolved(member("b", "h2:5432", "http://h2:8008"), of_b),
            ])
        };
        let one = vec![("b".to_owned(), "a".to_owned())];
        assert_eq!(pair("::1 10.0.0.1", "::1 10.0.0.2"), []);
        assert_eq!(pair("::1 10.0.0.1", "10.0.0.1 ::1"), one);
        assert_eq!(pair("fd00::1 10.0.0.1", "10.0.0.1"), one);
        assert_eq!(pair("10.0.0.1", "10.0.0.2"), []);
    }

    #[test]
    fn two_host_names_of_one_address_are_one_server() {
        let pair = |port: u16, rest_port: u16, address: &str| {
            let (postgres, url) = (format!("h2:{port}"), format!("http://h2:{rest_port}"));
            twins_of(vec![
                resolved(member("a", "h1:5432", "http://h1:8008"), "10.0.0.1"),
                resolved(member("b", &postgres, &url), address),
            ])
        };
        let one = vec![("b".to_owned(), "a".to_owned())];
        assert_eq!(pair(5432, 8009, "10.0.0.1"), one);
        assert_eq!(pair(5433, 8008, "10.0.0.1"), one);
        assert_eq!(pair(5433, 8009, "10.0.0.1"), []);
        assert_eq!(pair(5432, 8008, "10.0.0.2"), []);
    }

    #[test]
    fn members_behind_one_gateway_are_told_apart_by_the_path() {
        let behind = |name: &str, port: u16, path: &str| {
            let url = format!("http://gw:8008/{path}");
            resolved(member(name, &format!("gw:{port}"), &url), "10.0.0.1")
        };
        assert_eq!(twins_of(vec![behind("a", 5433, "a"), behind("b", 5434, "b")]), []);
        let one = vec![("b".to_owned(), "a".to_owned())];
        assert_eq!(twins_of(vec![behind("a", 5433, "a"), behind("b", 5434, "a/")]), one);
    }

    #[test]
    fn the_listed_name_is_taken_before_one_that_left() {
        let left =
            Member { left_at: Some(Moment::START), ..member("a", "h1:5432", "http://h1:8008") };
        let twins = twins_of(vec![left, member("b", "h1:5432", "http://h1:8008")]);
        assert_eq!(twins, [("a".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn a_chain_of_equal_places_is_one_group() {
        let twins = twins_of(vec![
            member("a", "h1:5432", "http://x:1"),
            member("b", "h2:5432", "http://x:2"),
            member("c", "h1:5432", "http://x:2"),
        ]);
        let to_a = |name: &str| (name.to_owned(), "a".to_owned());
        assert_eq!(twins, [to_a("b"), to_a("c")]);
    }
}
