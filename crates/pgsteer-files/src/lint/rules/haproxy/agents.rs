//! Agent-checks: the answers of a program beside each member.

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::Check;
use crate::lint::haproxy::lines::Word;
use crate::lint::haproxy::postgres::is_pooler_port;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::roles::Wanted;
use crate::lint::haproxy::server::Server;
use crate::lint::listed;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// A silent agent changes nothing.
    AGENT_WITHOUT_CHECK = "agent-without-check", Error, Look::Haproxy(without_check),
    title: "an agent check without a health check",
    costs: "An agent that refuses, is silent or sends an unknown word changes nothing: a member that dies together with its agent stays UP.",
    remedy: "Add `check` beside `agent-check`, with a check that tests the role itself.",
}

rule! {
    /// The check beside the agent tests no role.
    AGENT_BESIDE_BARE_CHECK = "agent-beside-bare-check", Warning, Look::Haproxy(bare_check),
    title: "the check beside an agent only connects",
    costs: "While the agent is silent HAProxy keeps its last answer, and a check that only connects does not contradict it: an old primary stays UP as long as it listens.",
    remedy: "Use a check that tests the role: `option httpchk OPTIONS /primary` and `check port 8008`.",
}

rule! {
    /// Some words are undone only by other words.
    AGENT_UNDO_WORDS = "agent-undo-words", Note, Look::Haproxy(undo_words),
    title: "an agent without `agent-send`, which has its own words",
    costs: "The state that an agent sets lasts until the opposite word: `down` until `up`, `maint` and `drain` until `ready`; silence changes nothing. After `maint`, `up` alone leaves the server in maintenance.",
    remedy: "Make sure that the agent reverts each of its words, best in one answer: `ready up` and `ready down`, or `ready up` and `maint`. pgsteer's agent does.",
}

rule! {
    /// The agent waits for the end of the line.
    AGENT_LINE_UNENDED = "agent-line-unended", Warning, Look::Haproxy(unended),
    title: "`agent-send` without a line break at its end",
    costs: "HAProxy sends the text as it is, and an agent that reads lines waits for the end of the line: every answer is late, or missing.",
    remedy: "End the text with `\\n`, in double quotes: `agent-send \"primary\\n\"`.",
}

rule! {
    /// The agent check goes to another program.
    AGENT_PORT_MISSING = "agent-port-missing", Error, Look::Haproxy(port_missing),
    title: "`agent-check` without `agent-port`",
    costs: "HAProxy asks the agent at the port of the health check, where another program answers, and keeps the last state. Without a `port` it refuses the file.",
    remedy: "Add `agent-port 5555`, or the port of your agent.",
}

/// Reports the servers with an agent check that `is_wrong`, one finding for each proxy.
fn each(
    haproxy: &Haproxy<'_>,
    findings: &mut Findings,
    of: impl Fn(&Proxy<'_>) -> bool,
    is_wrong: impl Fn(&Server<'_>) -> bool,
    message: impl Fn(&str, &Proxy<'_>) -> String,
) {
    for proxy in haproxy.model.proxies.iter().filter(|proxy| of(proxy)) {
        let wrong = proxy.members().filter(|server| server.has_agent() && is_wrong(server));
        let wrong: Vec<_> = wrong.collect();
        if let Some(first) = wrong.first() {
            let names = listed(wrong.iter().map(|server| server.name));
            findings.add(first.line, message(&names, proxy));
        }
    }
}

/// Returns true if the proxy leads to PostgreSQL and is not a piece. The meaning of other agents is
/// unknown, and another file may have what is missing in a piece.
fn postgres(proxy: &Proxy<'_>) -> bool {
    proxy.is_postgres() && !proxy.is_piece
}

fn without_check(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let is_wrong = |server: &Server<'_>| !server.is_checked() && !server.settings.has("track");
    each(haproxy, findings, postgres, is_wrong, |names, proxy| {
        format!("{names} of {}: no check remains while the agent is silent", proxy.title())
    });
}

fn bare_check(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let of = |proxy: &Proxy<'_>| {
        matches!(Check::of(proxy), Check::Connect | Check::Pgsql)
            && proxy.is_postgres()
            && Wanted::is_primary(proxy)
    };
    let is_wrong = |server: &Server<'_>| {
        let is_pooler = server.check_port().is_some_and(is_pooler_port);
        server.is_checked()
            && !server.settings.has("healthcheck")
            && !(is_pooler && server.is_checked_where_it_serves())
    };
    each(haproxy, findings, of, is_wrong, |names, proxy| {
        format!("the check of {names} of {} does not test the role", proxy.title())
    });
}

fn undo_words(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let is_wrong = |server: &Server<'_>| !server.settings.has("agent-send");
    each(haproxy, findings, postgres, is_wrong, |names, proxy| {
        format!(
            "the file does not show whether the agent of {names} of {} reverts its words",
            proxy.title()
        )
    });
}

fn unended(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let is_wrong = |server: &Server<'_>| {
        let sent = server.settings.get("agent-send").and_then(|sent| sent.value());
        let sent = sent.and_then(Word::known);
        sent.is_some_and(|text| !text.is_empty() && !text.ends_with(['\n', '\r']))
    };
    each(haproxy, findings, postgres, is_wrong, |names, proxy| {
        format!("what is sent about {names} of {} does not end in a newline", proxy.title())
    });
}

fn port_missing(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let is_wrong = |server: &Server<'_>| !server.settings.has("agent-port");
    each(
        haproxy,
        findings,
        |proxy| !proxy.is_piece,
        is_wrong,
        |names, proxy| format!("{names} of {}: no `agent-port`", proxy.title()),
    );
}
