//! The process: its name resolution, its log, its admin socket, and a hang.

use std::collections::BTreeSet;

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::sections::Kind;
use crate::lint::haproxy::server::Server;
use crate::lint::haproxy::values::{Address, Given, number};
use crate::lint::listed;
use crate::lint::location::Severity;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// The address may be out of date.
    NAME_RESOLVED_ONCE = "name-resolved-once", Warning, Look::Haproxy(once),
    title: "a host name without `resolvers`, which HAProxy resolves once",
    costs: "HAProxy resolves the name when it starts. A member that returns with another address, as containers do, stays DOWN until HAProxy reloads. With `init-addr none` so does a name that did not exist yet.",
    remedy: "Add a `resolvers` section, and `resolvers NAME` with `init-addr last,libc,none` to `default-server`; or use addresses. Where /etc/hosts has fixed addresses, allow the finding by a comment.",
}

rule! {
    /// The log has no target.
    LOG_NOWHERE = "log-nowhere", Warning, Look::Haproxy(no_log),
    title: "`log global` without a `log` in `global`",
    costs: "HAProxy writes no log: neither which member became DOWN and why, nor which clients were connected.",
    remedy: "`log /dev/log local0` in `global`; in a container `log stdout format raw local0`.",
}

rule! {
    /// The socket can disable servers and more.
    ADMIN_SOCKET_OPEN = "admin-socket-open", Error, Look::Haproxy(socket),
    title: "HAProxy's socket is open to others",
    costs: "The socket requires no password. At `level admin` each of its clients can take servers out of service, change their addresses and end sessions; below that level it can read names, addresses and sessions.",
    remedy: "Use a UNIX socket, as `stats socket /run/haproxy/admin.sock mode 660 level admin`; or bind it to 127.0.0.1.",
}

rule! {
    /// A bug of HAProxy 3.0.
    CLIENTS_HANG = "clients-hang", Warning, Look::Haproxy(hang),
    title: "clients that connect during a failover may hang",
    costs: "HAProxy 3.0 (observed with 3.0.11 of Debian 13, not with 2.6 and 3.2) leaves the connection of a client open for ever if it waits to connect again, or is connecting, at the moment in which `on-marked-down shutdown-sessions` ends the sessions of the server.",
    remedy: "Use another version of HAProxy. With 3.0 set `retries 0` in the proxy or in `defaults`, which leaves the time of one connection attempt; behind pgsteer's agent add `drain_ms=` to `agent-send`, which leaves only attempts at a server that does not answer at all.",
}

fn once(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    // One finding for all, because several proxies usually have the same members.
    let mut hosts: BTreeSet<&str> = BTreeSet::new();
    let mut first: Option<&Line> = None;
    let mut titles: Vec<String> = Vec::new();
    for proxy in model.postgres().filter(|proxy| !proxy.is_piece) {
        let is_once = |server: &&Server<'_>| {
            server.host_name().is_some() && !server.settings.has("resolvers")
        };
        let servers: Vec<_> = proxy.members().filter(is_once).collect();
        let Some(server) = servers.first() else { continue };
        first = first.or(Some(server.line));
        titles.push(proxy.title());
        hosts.extend(servers.iter().filter_map(|server| server.host_name()));
    }
    if let Some(line) = first {
        let hosts = listed(hosts);
        let titles = listed(titles.iter().map(String::as_str));
        findings.add(line, format!("{hosts} in {titles}"));
    }
}

fn no_log(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let file = &haproxy.model.file;
    if !file.has_all_sections() || file.global("log").is_some() {
        return;
    }
    let sections =
        file.sections.iter().filter(|it| it.kind.is_proxy() || it.kind == Kind::Defaults);
    let mut lines = sections.flat_map(|section| section.lines_of("log"));
    if let Some(line) = lines.find(|line| line.begins(&["log", "global"])) {
        findings.add(line, "`global` has no `log`");
    }
}

fn socket(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let globals = haproxy.model.file.sections.iter().filter(|it| it.kind == Kind::Global);
    for line in globals.flat_map(|section| section.lines_of("stats")) {
        if line.word(1) != "socket" {
            continue;
        }
        let behind = |name: &str| {
            let at = line.words.iter().position(|word| word.is(name));
            at.map_or("", |at| line.word(at + 1))
        };
        let is_admin = behind("level") == "admin";
        let Some(open_to) = open_to(line.word(2), behind("mode")) else { continue };
        let level = if is_admin { "at `level admin`" } else { "below `level admin`" };
        let severity = if is_admin { Severity::Error } else { Severity::Warning };
        findings.add_as(severity, line, format!("{open_to} can connect to it, {level}"));
    }
}

/// Returns which clients besides the owner can connect to a socket; none for a protected socket.
fn open_to(address: &str, mode: &str) -> Option<&'static str> {
    let is_path =
        address.starts_with('/') || address.starts_with("unix@") || address.starts_with('.');
    if is_path {
        let others = mode.chars().next_back().and_then(|c| c.to_digit(8))?;
        // Connecting to a socket needs write permission.
        return (others & 2 != 0).then_some("every user of the machine");
    }
    let address =
        address.trim_start_matches("tcp@").trim_start_matches("tcp4@").trim_start_matches("tcp6@");
    let is_port = address.rsplit_once(':').is_some_and(|(_, port)| number(port).is_some());
    let address = Address::read(address).filter(|_| is_port)?;
    (!address.is_loopback()).then_some("every host in the network")
}

fn hang(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    if !haproxy.options.haproxy.loses_connecting_clients() {
        return;
    }
    for proxy in haproxy.model.postgres().filter(|proxy| !proxy.is_piece) {
        let retries = proxy.last(&["retries"]);
        let retries = retries.map_or(Given::Absent, |line| Given::read(line.words.get(1), number));
        if retries.or(3).is_some_and(|retries| retries > 0) && ends_sessions(proxy) {
            findings.add(
                proxy.head,
                format!(
                    "{} retries connections, and ends the sessions of a server that is DOWN",
                    proxy.title()
                ),
            );
        }
    }
}

fn ends_sessions(proxy: &Proxy<'_>) -> bool {
    proxy.members().any(|server| server.settings.text("on-marked-down") == "shutdown-sessions")
}
