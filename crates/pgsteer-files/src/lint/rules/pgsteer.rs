//! pgsteer.toml: errors of its own parser, and valid settings that are rarely intended.

use crate::lint::location::{Location, Severity};
use crate::lint::pgsteer::Pgsteer;
use crate::lint::rule::{Findings, Look, Rule, rule};
use pgsteer_config::origin::Origin;
use pgsteer_core::settings::Membership;

/// All of them.
pub static RULES: &[&Rule] = &[&CONFIG_REFUSED, &ONE_PATRONI_ADDRESS, &NO_CHECK_LOGIN, &PAGE_OPEN];

rule! {
    /// pgsteer does not start with it.
    CONFIG_REFUSED = "config-refused", Error, Look::Pgsteer(refused),
    title: "pgsteer refuses the file",
    costs: "pgsteer does not start with this file. A running pgsteer keeps its settings when it reloads the file.",
    remedy: "Follow the message. `pgsteer run --config FILE --check-config` reports the same errors, and the settings of a valid file.",
}

rule! {
    /// The start depends on one machine.
    ONE_PATRONI_ADDRESS = "one-patroni-address", Note, Look::Pgsteer(one_address),
    title: "only one Patroni address",
    costs: "While that machine is down, a pgsteer that starts cannot find the members and serves no client, although the other members run.",
    remedy: "List all of them in `urls`; one that answers is enough.",
}

rule! {
    /// A failover is detected late.
    NO_CHECK_LOGIN = "no-check-login", Note, Look::Pgsteer(no_check),
    title: "no login for the checks",
    costs: "Without its own connection to each member pgsteer detects a failover at its next request to Patroni, not within milliseconds.",
    remedy: "Add `[check]` with a login that has no rights; `pgsteer render pg_hba` writes its lines.",
}

rule! {
    /// The pages are on all addresses.
    PAGE_OPEN = "page-open", Warning, Look::Pgsteer(page_open),
    title: "pgsteer's pages are open to every host that reaches the machine",
    costs: "The pages show names, addresses, versions and the state of every member, on all networks of the machine and without a password.",
    remedy: "Set `listen` in `[http]` to 127.0.0.1, or to the address in the network of HAProxy and Prometheus.",
}

fn refused(pgsteer: &Pgsteer, findings: &mut Findings) {
    let Err(errors) = &pgsteer.read else { return };
    for error in errors.iter() {
        let (place, key) = match &error.origin {
            Origin::File { line, column, key, .. } => {
                let place = Location { line: *line, column: *column, column_end: *column };
                (place, if key.is_empty() { String::new() } else { format!("{key}: ") })
            }
            Origin::Default(key) => (Location::line(1), format!("{key} (by default): ")),
            _ => (Location::line(1), String::new()),
        };
        let remedy = error.problem.remedy().map_or(String::new(), |remedy| format!("; {remedy}"));
        findings.add(place, format!("{key}{}{remedy}", error.problem));
    }
}

fn one_address(pgsteer: &Pgsteer, findings: &mut Findings) {
    let Ok(config) = &pgsteer.read else { return };
    if let Membership::Patroni(patroni) = &config.cluster.members
        && let [only] = patroni.urls.as_slice()
    {
        findings.add(Location::line(1), format!("[patroni] names only {only}"));
    }
}

fn no_check(pgsteer: &Pgsteer, findings: &mut Findings) {
    let Ok(config) = &pgsteer.read else { return };
    if matches!(config.cluster.members, Membership::Patroni(_)) && config.cluster.check.is_none() {
        findings.add(Location::line(1), "there is no [check]");
    }
}

fn page_open(pgsteer: &Pgsteer, findings: &mut Findings) {
    let Ok(config) = &pgsteer.read else { return };
    if let Some(http) = config.http.as_ref().filter(|http| http.listen.ip().is_unspecified()) {
        let head = pgsteer.section("http");
        let message = format!("[http] listens on {}", http.listen);
        match head {
            Some(head) => findings.add(head, message),
            None => {
                findings.add_as(Severity::Note, Location::line(1), format!("{message} by default"));
            }
        }
    }
}
