//! Agent-checks: the answers of a program beside each member.

use crate::lint::finding::Findings;
use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::checks::Check;
use crate::lint::haproxy::lines::Word;
use crate::lint::haproxy::proxy::{Proxy, is_pooler_port};
use crate::lint::haproxy::roles::Wanted;
use crate::lint::haproxy::server::Server;
use crate::lint::listed;
use crate::lint::rule::{Look, rule};

rule! {
    /// A silent agent changes nothing.
    AGENT_WITHOUT_CHECK = "agent-without-check", Error, Look::Haproxy(without_check),
    title: "an agent is asked, and no health check stands beside it",
    costs: "An agent that refuses, is silent or says nothing that HAProxy knows changes nothing: a member that died with its agent stays UP.",
    remedy: "`check` beside `agent-check`, to something that tells the role by itself.",
}

rule! {
    /// The check beside the agent tests no role.
    AGENT_BESIDE_BARE_CHECK = "agent-beside-bare-check", Warning, Look::Haproxy(bare_check),
    title: "the check beside an agent only connects",
    costs: "While the agent is silent HAProxy keeps what it heard last, and a check that only connects does not contradict it: an old primary stays UP as long as it listens.",
    remedy: "Let the check ask for the role too: `option httpchk OPTIONS /primary` and `check port 8008`.",
}

rule! {
    /// Some words are undone only by other words.
    AGENT_UNDO_WORDS = "agent-undo-words", Note, Look::Haproxy(undo_words),
    title: "an agent is asked nothing, so it is one with words of its own",
    costs: "What an agent says stays until it says the opposite: `down` until `up`, `maint` and `drain` until `ready`, and silence changes nothing. One that says `up` after `maint` leaves the server in maintenance.",
    remedy: "See that it undoes each of its words, best all at once: `ready up` and `ready down`, or `ready up` and `maint`. pgsteer's does.",
}

rule! {
    /// The agent waits for the end of the line.
    AGENT_LINE_UNENDED = "agent-line-unended", Warning, Look::Haproxy(unended),
    title: "what is sent to the agent is no whole line",
    costs: "HAProxy sends the text as it is, and an agent that reads lines waits for the end of it: every answer is late, or never comes.",
    remedy: "`\\n` at its end, in double quotes: `agent-send \"primary\\n\"`.",
}

rule! {
    /// The agent check goes to another program.
    AGENT_PORT_MISSING = "agent-port-missing", Error, Look::Haproxy(port_missing),
    title: "`agent-check` without `agent-port`",
    costs: "HAProxy asks the agent at the port of the health check, where something else answers, and keeps what it believed; without a `port` it refuses the file.",
    remedy: "`agent-port 5555`, or whatever the agent listens on.",
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
        format!("{names} of {}: nothing is left when the agent is silent", proxy.title())
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
        format!("the check of {names} of {} tells no role", proxy.title())
    });
}

fn undo_words(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let is_wrong = |server: &Server<'_>| !server.settings.has("agent-send");
    each(haproxy, findings, postgres, is_wrong, |names, proxy| {
        format!(
            "whether the agent of {names} of {} takes back what it says cannot be told",
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
        |names, proxy| format!("{names} of {}: nobody says where the agent is", proxy.title()),
    );
}
