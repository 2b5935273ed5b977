//! The rules for pg_hba.conf.

use std::collections::{BTreeMap, BTreeSet};

use super::hba_login::check_login;
use crate::lint::hba::Hba;
use crate::lint::hba::address::From;
use crate::lint::hba::cover::{covers, is_everybody, is_loopback, is_one_host};
use crate::lint::hba::entry::Entry;
use crate::lint::listed;
use crate::lint::location::Severity;
use crate::lint::rule::{Findings, Look, Rule, rule};

/// All of them.
pub static RULES: &[&Rule] = &[
    &HBA_TRUST_WIDE,
    &HBA_TRUST_POWERFUL,
    &HBA_PASSWORD_IN_CLEAR,
    &HBA_IDENT,
    &HBA_OCTAL_ADDRESS,
    &HBA_LOCKS_OUT,
    &HBA_CHECK_LOGIN,
    &HBA_REPLICATION_LOCAL,
    &HBA_MD5,
    &HBA_REPLICATION_OPEN,
    &HBA_LINE_SHADOWED,
    &HBA_LINE_REFUSED,
];

/// The limit for comparing every line with every other one.
const SHADOWED_LINES_MAX: usize = 2_000;

rule! {
    /// No authentication is required.
    HBA_TRUST_WIDE = "hba-trust-wide", Error, Look::PgHba(trust_wide),
    title: "`trust` for more than one address",
    costs: "Every host with an address of that network logs in as any user of the line, without a password.",
    remedy: "Use `scram-sha-256`. For a check without a password use `trust` for its one login, from its exact address.",
}

rule! {
    /// An address is not an authentication.
    HBA_TRUST_POWERFUL = "hba-trust-powerful", Warning, Look::PgHba(trust_powerful),
    title: "`trust` from another machine for a login with all rights",
    costs: "Every user and every program on that machine, and every host that takes its address, is superuser or can copy the whole cluster.",
    remedy: "Use `scram-sha-256`, with the password in the other machine's ~/.pgpass; `trust` at most for a login without rights.",
}

rule! {
    /// Every host on the path can read it.
    HBA_PASSWORD_IN_CLEAR = "hba-password-in-clear", Error, Look::PgHba(clear),
    title: "the password crosses the network in clear",
    costs: "With the methods `password`, `ldap`, `pam`, `radius` and `bsd` the client sends the password itself, and the line allows that without TLS.",
    remedy: "Use `scram-sha-256`. If another method is necessary, use a `hostssl` line.",
}

rule! {
    /// The client's machine reports the user name.
    HBA_IDENT = "hba-ident", Warning, Look::PgHba(ident),
    title: "`ident` over the network",
    costs: "PostgreSQL asks the client's machine for the name of the user. That machine, or one that takes its address, can name any user of the line.",
    remedy: "Use `scram-sha-256`, or `cert` on a `hostssl` line; for a local socket `peer`.",
}

rule! {
    /// A number has a leading zero.
    HBA_OCTAL_ADDRESS = "hba-octal-address", Error, Look::PgHba(octal),
    title: "an address with a leading zero, which is an octal number",
    costs: "PostgreSQL reads `010` as 8: the line admits another network, and refuses the intended one.",
    remedy: "Remove the leading zeros.",
}

rule! {
    /// The line comes too late.
    HBA_LOCKS_OUT = "hba-locks-out", Error, Look::PgHba(locks_out),
    title: "a line refuses logins that later lines admit",
    costs: "The first matching line decides. Below a `reject` PostgreSQL never reaches the lines for the replication user, repmgr or the check login: standbys lose their primary, and a health check reports the member DOWN.",
    remedy: "Move the `reject` below the lines of the logins that are admitted.",
}

rule! {
    /// pgsteer's own login.
    HBA_CHECK_LOGIN = "hba-check-login", Error, Look::PgHba(check_login),
    title: "pg_hba.conf refuses the check login of pgsteer.toml",
    costs: "pgsteer detects a failover from Patroni only, and later. Without Patroni no member is known to be the primary, and all services stay shut.",
    remedy: "Add a line for the login from each address where pgsteer runs, with a method that `require_auth` of `[check]` allows.",
}

rule! {
    /// Only the lines of initdb.
    HBA_REPLICATION_LOCAL = "hba-replication-local", Note, Look::PgHba(replication_local),
    title: "replication from this machine only",
    costs: "A standby on another machine cannot connect. After a failover this member, as the primary, has no replicas.",
    remedy: "Add `host replication USER ADDRESS/32 scram-sha-256` for each of the other members, if there are any.",
}

rule! {
    /// The method is deprecated.
    HBA_MD5 = "hba-md5", Note, Look::PgHba(md5),
    title: "method `md5`",
    costs: "A stolen md5 hash is as good as the password itself. PostgreSQL 18 warns about md5, and a later version removes it.",
    remedy: "Set passwords anew with `password_encryption = 'scram-sha-256'`, then write `scram-sha-256`.",
}

rule! {
    /// Every client may request a copy.
    HBA_REPLICATION_OPEN = "hba-replication-open", Warning, Look::PgHba(replication),
    title: "replication is open to every address",
    costs: "Only the login protects a copy of all data, and all replication slots and walsenders.",
    remedy: "Write a line for each member's own address.",
}

rule! {
    /// The line is never reached.
    HBA_LINE_SHADOWED = "hba-line-shadowed", Warning, Look::PgHba(shadowed),
    title: "a line that PostgreSQL never reaches",
    costs: "The first matching line alone decides, so this line never applies, be it a password or a rejection.",
    remedy: "Move the narrower line above the wider one, or remove it.",
}

rule! {
    /// The line invalidates the whole file.
    HBA_LINE_REFUSED = "hba-line-refused", Error, Look::PgHba(refused),
    title: "a line that PostgreSQL refuses",
    costs: "At a reload PostgreSQL ignores the whole file and keeps the old one; it does not start with the file.",
    remedy: "Correct it; `select * from pg_hba_file_rules where error is not null` shows PostgreSQL's own messages.",
}

/// Returns true if no authentication is required: neither a password nor a certificate.
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
            Some(_) => "for an administrative login",
            None if entry.is_for_database("replication") => "for replication",
            None => continue,
        };
        findings.add(entry.place, format!("`trust` {what} from {}", entry.origin()));
    }
}

/// Methods with which the client sends the password itself.
const PASSWORD_METHODS: [&str; 5] = ["password", "ldap", "pam", "radius", "bsd"];

fn clear(hba: &Hba, findings: &mut Findings) {
    for entry in &hba.entries {
        let is_sent = PASSWORD_METHODS.contains(&entry.method.as_str());
        let is_clear = ["host", "hostnossl", "hostnogssenc"].contains(&entry.kind.as_str());
        if is_sent && is_clear && !is_loopback(&entry.from) {
            let message = format!("a `{}` line with `{}`", entry.kind, entry.method);
            findings.add(entry.method_place, message);
        } else if entry.asks_in_clear {
            let message = "PostgreSQL passes it on to the LDAP server in clear: `ldaptls=1`";
            findings.add_as(Severity::Warning, entry.method_place, message);
        }
    }
}

fn ident(hba: &Hba, findings: &mut Findings) {
    for entry in hba.entries.iter().filter(|entry| entry.method == "ident") {
        if !is_loopback(&entry.from) {
            findings.add(entry.method_place, format!("`ident` from {}", entry.origin()));
        }
    }
}

fn octal(hba: &Hba, findings: &mut Findings) {
    for entry in &hba.entries {
        if let Some(text) = &entry.octal {
            findings.add(entry.from_place, format!("`{text}` is {}", entry.origin()));
        }
    }
}

/// Returns the lines that allow logins which an earlier line rejects, by the number of the earlier
/// line.
fn locked_out(hba: &Hba) -> BTreeMap<usize, (&Entry, Vec<&Entry>)> {
    let mut by_reject: BTreeMap<usize, (&Entry, Vec<&Entry>)> = BTreeMap::new();
    let entries = hba.entries.get(..SHADOWED_LINES_MAX).unwrap_or(&hba.entries);
    for (at, later) in entries.iter().enumerate().filter(|(_, entry)| entry.method != "reject") {
        let earlier = entries.iter().take(at).find(|earlier| covers(earlier, later));
        if let Some(reject) = earlier.filter(|earlier| earlier.method == "reject") {
            by_reject.entry(reject.place.line).or_insert((reject, Vec::new())).1.push(later);
        }
    }
    by_reject
}

fn locks_out(hba: &Hba, findings: &mut Findings) {
    for (reject, later) in locked_out(hba).into_values() {
        let lines: Vec<String> = later.iter().map(|it| format!("line {}", it.place.line)).collect();
        let users: BTreeSet<&str> =
            later.iter().flat_map(|it| &it.users).map(|user| user.text.as_str()).collect();
        let message = format!(
            "rejects logins that {} would admit (users: {})",
            listed(lines.iter().map(String::as_str)),
            listed(users.into_iter().map(|user| if user.len() > 63 { "…" } else { user }))
        );
        findings.add(reject.place, message);
    }
    repmgr(hba, findings);
}

/// Checks the lines for repmgr, which logs in to its own database and for replication.
fn repmgr(hba: &Hba, findings: &mut Findings) {
    const NAME: &str = "repmgr";
    let is_its = |entry: &&Entry| entry.users.iter().any(|user| user.text == NAME);
    let Some(first) = hba.entries.iter().find(is_its) else { return };
    let lets_in = |is_database: fn(&Entry) -> bool| {
        hba.entries.iter().any(|entry| {
            let is_user = entry.users.iter().any(|user| user.text == NAME || user.is("all"));
            let is_remote = !is_loopback(&entry.from);
            is_user && is_remote && entry.method != "reject" && is_database(entry)
        })
    };
    let own = lets_in(|entry| entry.databases.iter().any(|it| it.text == NAME || it.is("all")));
    let replication = lets_in(|entry| entry.is_for_database("replication"));
    let missing = match (own, replication) {
        (true, false) => "for replication, so standbys cannot connect",
        (false, true) => "to its own database, so repmgrd cannot check the other nodes",
        _ => return,
    };
    findings.add_as(
        Severity::Warning,
        first.place,
        format!("no line admits `{NAME}` from another machine {missing}"),
    );
}

fn replication_local(hba: &Hba, findings: &mut Findings) {
    let lines: Vec<_> =
        hba.entries.iter().filter(|entry| entry.is_for_database("replication")).collect();
    let is_local = |entry: &&Entry| is_loopback(&entry.from) || entry.method == "reject";
    // Other lines accept logins from other machines, so this is not a development machine.
    let is_served =
        hba.entries.iter().any(|entry| !is_loopback(&entry.from) && entry.method != "reject");
    if let Some(first) = lines.first().filter(|_| is_served && lines.iter().all(is_local)) {
        findings.add(first.place, "no line admits replication from another machine");
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
        let earlier = before.into_iter().find(|earlier| covers(earlier, later));
        // `hba-locks-out` reports rejected logins once, at the line that rejects them.
        let is_told = |earlier: &&Entry| earlier.method == "reject" && later.method != "reject";
        if let Some(earlier) = earlier.filter(|earlier| !is_told(earlier)) {
            let line = earlier.place.line;
            let method = &earlier.method;
            findings
                .add(later.place, format!("line {line} already decides its logins, by `{method}`"));
        }
    }
}

fn refused(hba: &Hba, findings: &mut Findings) {
    for refused in &hba.refused {
        findings.add(refused.place, refused.why.clone());
    }
}
