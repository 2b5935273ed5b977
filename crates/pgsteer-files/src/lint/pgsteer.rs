//! pgsteer.toml: errors of its own parser, and valid settings that are rarely intended.

use super::finding::{Finding, Findings, Location, Severity};
use super::hba::CheckLogin;
use super::rule::{Look, Rule, rule};
use pgsteer_config::error::ConfigErrors;
use pgsteer_config::file;
use pgsteer_config::origin::Origin;
use pgsteer_core::settings::{Config, Membership};

/// All of them.
pub static RULES: &[&Rule] = &[&CONFIG_REFUSED, &ONE_PATRONI_ADDRESS, &NO_CHECK_LOGIN, &PAGE_OPEN];

rule! {
    /// pgsteer does not start with it.
    CONFIG_REFUSED = "config-refused", Error, Look::Pgsteer(refused),
    title: "pgsteer refuses the file",
    costs: "pgsteer does not start with it; a running one keeps what it has at a reload.",
    remedy: "What the message says; `pgsteer run --config FILE --check-config` tells the same, and what the file means.",
}

rule! {
    /// The start depends on one machine.
    ONE_PATRONI_ADDRESS = "one-patroni-address", Note, Look::Pgsteer(one_address),
    title: "one address of Patroni only",
    costs: "While that machine is down a pgsteer that starts anew cannot find the members, and stays shut although the others are well.",
    remedy: "All of them in `urls`; one that answers is enough.",
}

rule! {
    /// A failover is detected late.
    NO_CHECK_LOGIN = "no-check-login", Note, Look::Pgsteer(no_check),
    title: "no login for the checks",
    costs: "Without a connection of its own pgsteer hears of a failover when it asks Patroni the next time, and not within milliseconds.",
    remedy: "`[check]` with a login that has no rights; `pgsteer render pg_hba` writes its lines.",
}

rule! {
    /// The pages are on all addresses.
    PAGE_OPEN = "page-open", Warning, Look::Pgsteer(page_open),
    title: "pgsteer's pages are open to whoever reaches the machine",
    costs: "They show names, addresses, versions and the state of every member, to all networks of the machine and without a password.",
    remedy: "`listen` in `[http]` on 127.0.0.1, or on the address of the network from which HAProxy and Prometheus ask.",
}

/// The file as its rules see it.
#[derive(Debug)]
pub struct Pgsteer {
    read: Result<Config, ConfigErrors>,
    /// The heads of its sections, with their lines.
    heads: Vec<(usize, String)>,
}

impl Pgsteer {
    fn read(text: &str) -> Pgsteer {
        let (draft, errors) = file::read(text, "");
        let head = |(number, line): (usize, &str)| {
            let name = line.trim().strip_prefix('[')?.split_once(']')?.0;
            Some((number, name.trim().to_owned()))
        };
        let heads = (1..).zip(text.lines()).filter_map(head).collect();
        Pgsteer { read: draft.finish(errors), heads }
    }

    /// Where a section begins, if it is in the file.
    fn section(&self, name: &str) -> Option<Location> {
        let head = self.heads.iter().find(|(_, head)| head == name)?;
        Some(Location::line(head.0))
    }
}

/// The check login that a text describes; none without `[check]`, or in a file that is refused.
pub fn check_login(text: &str) -> Option<CheckLogin> {
    Pgsteer::read(text).read.ok()?.cluster.check.as_ref().map(CheckLogin::from)
}

/// Returns the findings for a text.
pub(super) fn judge(text: &str) -> Vec<Finding> {
    let pgsteer = Pgsteer::read(text);
    super::looked(RULES, |look, findings| {
        if let Look::Pgsteer(look) = look {
            look(&pgsteer, findings);
        }
    })
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
        findings.add(Location::line(1), format!("{only} is all that [patroni] names"));
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
        let message = format!("they are on {}", http.listen);
        match head {
            Some(head) => findings.add(head, message),
            None => {
                findings.add_as(Severity::Note, Location::line(1), format!("{message} by default"));
            }
        }
    }
}
