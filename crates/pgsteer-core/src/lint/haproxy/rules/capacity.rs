//! More connections than PostgreSQL has.

use std::collections::BTreeMap;

use crate::lint::finding::Findings;
use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::proxy::is_pooler_port;
use crate::lint::haproxy::values::Given;
use crate::lint::listed;
use crate::lint::rule::{Look, rule};

rule! {
    /// More than `max_connections`.
    MAXCONN_BEYOND_MAX_CONNECTIONS = "maxconn-beyond-max-connections", Warning, Look::Haproxy(beyond),
    title: "HAProxy lets more clients through to a member than it has connections for",
    costs: "`FATAL: sorry, too many clients already`, where HAProxy could have let them wait; a check by SQL is refused with them, and the member is DOWN.",
    remedy: "Let the `maxconn` of all server lines for a member add up to less than its `max_connections`, or raise that.",
}

/// What is let through to one member.
#[derive(Default)]
struct Sum<'a> {
    total: u64,
    parts: Vec<String>,
    last: Option<&'a Line>,
}

/// Server lines without a `maxconn`, and poolers, which let clients wait by themselves, do not count.
fn beyond(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let Some(max_connections) = haproxy.options.max_connections else { return };
    let mut sums: BTreeMap<(String, u16), Sum<'_>> = BTreeMap::new();
    for proxy in haproxy.model.postgres() {
        for server in proxy.members() {
            let Some(address) = &server.address else { continue };
            let Some(port) = address.port.filter(|port| !is_pooler_port(*port)) else { continue };
            let Given::Is(maxconn) = server.settings.number("maxconn") else { continue };
            if maxconn > 0 {
                let sum = sums.entry((address.host.clone(), port)).or_default();
                sum.total = sum.total.saturating_add(maxconn);
                sum.parts.push(format!("{maxconn} of {}", proxy.title()));
                sum.last = Some(server.line);
            }
        }
    }
    for ((host, port), sum) in sums.into_iter().filter(|(_, sum)| sum.total > max_connections) {
        let Some(line) = sum.last else { continue };
        let parts = listed(sum.parts.iter().map(String::as_str));
        findings.add(
            line,
            format!(
                "{} for {host}:{port} ({parts}), and it has {max_connections}, some of them for superusers",
                sum.total
            ),
        );
    }
}
