//! The rules for pg_hba.conf.

use super::Hba;
use super::cover::{covers, is_everybody, is_loopback, is_one_host};
use super::entry::{Entry, From};
use crate::lint::finding::Findings;
use crate::lint::rule::{Look, Rule, rule};

/// All of them.
pub static RULES: &[&Rule] = &[
    &HBA_TRUST_WIDE,
    &HBA_TRUST_POWERFUL,
    &HBA_PASSWORD_IN_CLEAR,
    &HBA_MD5,
    &HBA_REPLICATION_OPEN,
    &HBA_LINE_SHADOWED,
    &HBA_LINE_REFUSED,
];

/// Comparing every line with every other one has an end.
const SHADOWED_LINES_MAX: usize = 2_000;

rule! {
    /// Nobody has to prove anything.
    HBA_TRUST_WIDE = "hba-trust-wide", Error, Look::PgHba(trust_wide),
    title: "`trust` for more than one address",
    costs: "Whoever has an address of that network logs in as anybody the line names, without a password.",
    remedy: "`scram-sha-256`; where a check has no password, `trust` for its one login, from its exact address.",
}

rule! {
    /// An address is no proof.
    HBA_TRUST_POWERFUL = "hba-trust-powerful", Warning, Look::PgHba(trust_powerful),
    title: "`trust` from another machine for a login that may do everything",
    costs: "Every user and every program on that machine, and whoever takes its address, is superuser or copies the whole cluster.",
    remedy: "`scram-sha-256`, with the password in the other machine's ~/.pgpass; `trust` at most for a login without any rights.",
}

rule! {
    /// Everybody on the way reads it.
    HBA_PASSWORD_IN_CLEAR = "hba-password-in-clear", Error, Look::PgHba(clear),
    title: "the password crosses the network in clear",
    costs: "With method `password` the client sends it as it is, and the line allows that without TLS.",
    remedy: "`scram-sha-256`; where it has to be `password`, on a `hostssl` line.",
}

rule! {
    /// It is going away.
    HBA_MD5 = "hba-md5", Note, Look::PgHba(md5),
    title: "method `md5`",
    costs: "A hash of it that is stolen logs in like the password itself; PostgreSQL 18 warns of it and a later version drops it.",
    remedy: "Set passwords anew with `password_encryption = 'scram-sha-256'`, then write `scram-sha-256`.",
}

rule! {
    /// Everybody may ask for a copy.
    HBA_REPLICATION_OPEN = "hba-replication-open", Warning, Look::PgHba(replication),
    title: "replication is open to every address",
    costs: "Only the login stands between the network and a copy of everything, and with it every replication slot and walsender.",
    remedy: "A line for each member's own address.",
}

rule! {
    /// It is never reached.
    HBA_LINE_SHADOWED = "hba-line-shadowed", Warning, Look::PgHba(shadowed),
    title: "a line that can never be reached",
    costs: "The first line that fits decides alone: what this one says, be it a password or a rejection, is never asked.",
    remedy: "Put the narrower line above the wider one, or remove it.",
}

rule! {
    /// It stops the whole file.
    HBA_LINE_REFUSED = "hba-line-refused", Error, Look::PgHba(refused),
    title: "a line that PostgreSQL refuses",
    costs: "At a reload the whole file is ignored and the old one stays in force; at a start PostgreSQL does not come up.",
    remedy: "Correct it; `select * from pg_hba_file_rules where error is not null` shows what PostgreSQL thinks.",
}

/// Nobody has to prove anything: neither by a password nor by a certificate.
fn trusts(entry: &&Entry) -> bool {
    entry.method == "trust" && !entry.has_certificate
}

fn trust_wide(hba: &Hba, findings: &mut Findings) {
    let wide = |entry: &&Entry| !is_one_host(&entry.from) && !matches!(entry.from, From::Other(_));
    for entry in hba.entries.iter().filter(trusts).filter(wide) {
        findings.add(entry.from_place, format!("`trust` from {}", entry.origin()));
    }
}

fn trust_powerful(hba: &Hba, findings: &mut Findings) {
    for entry in hba.entries.iter().filter(trusts) {
        if !is_one_host(&entry.from) || is_loopback(&entry.from) {
            continue;
        }
        let known = ["postgres", "repmgr", "replicator"];
        let powerful =
            entry.users.iter().find(|it| it.is("all") || known.contains(&it.text.as_str()));
        let what = match powerful {
            Some(user) if user.is("all") => "for every user",
            Some(_) => "for a login of administration",
            None if entry.is_for_database("replication") => "for replication",
            None => continue,
        };
        findings.add(entry.place, format!("`trust` {what} from {}", entry.origin()));
    }
}

fn clear(hba: &Hba, findings: &mut Findings) {
    let is_clear = |entry: &&Entry| {
        entry.method == "password"
            && ["host", "hostnossl"].contains(&entry.kind.as_str())
            && !is_loopback(&entry.from)
    };
    for entry in hba.entries.iter().filter(is_clear) {
        findings.add(entry.method_place, format!("a `{}` line with `password`", entry.kind));
    }
}

fn md5(hba: &Hba, findings: &mut Findings) {
    for entry in hba.entries.iter().filter(|entry| entry.method == "md5") {
        findings.add(entry.method_place, format!("`md5` from {}", entry.origin()));
    }
}

fn replication(hba: &Hba, findings: &mut Findings) {
    for entry in hba.entries.iter().filter(|entry| entry.is_for_database("replication")) {
        let is_let_in = entry.method != "reject" && is_everybody(&entry.from);
        if is_let_in {
            findings.add(entry.from_place, format!("from {}", entry.origin()));
        }
    }
}

fn shadowed(hba: &Hba, findings: &mut Findings) {
    let entries = hba.entries.get(..SHADOWED_LINES_MAX).unwrap_or(&hba.entries);
    for (at, later) in entries.iter().enumerate() {
        let before = entries.iter().take(at);
        if let Some(earlier) = before.into_iter().find(|earlier| covers(earlier, later)) {
            let line = earlier.place.line;
            let method = &earlier.method;
            findings
                .add(later.place, format!("line {line} takes its logins before it, by `{method}`"));
        }
    }
}

fn refused(hba: &Hba, findings: &mut Findings) {
    for refused in &hba.refused {
        findings.add(refused.place, refused.why.clone());
    }
}
