//! Bytes before PostgreSQL's own protocol: PROXY headers and TLS.

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::lines::Line;
use crate::lint::haproxy::postgres::{is_pooler_port, is_postgres_port};
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::server::Server;
use crate::lint::listed;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// PostgreSQL does not parse the header.
    SEND_PROXY_TO_POSTGRES = "send-proxy-to-postgres", Error, Look::Haproxy(send_proxy),
    title: "HAProxy sends a PROXY header to PostgreSQL",
    costs: "PostgreSQL and PgBouncer do not support the PROXY protocol: the header is an invalid startup packet to them, and they close every connection.",
    remedy: "Remove `send-proxy`. HAProxy's log has the address of the client; pgsteer can append it to `application_name`.",
}

rule! {
    /// PostgreSQL negotiates TLS differently.
    TLS_AT_HAPROXY = "tls-at-haproxy", Error, Look::Haproxy(tls),
    title: "HAProxy starts TLS without PostgreSQL's SSLRequest",
    costs: "A TLS connection to PostgreSQL starts with an SSLRequest in clear. HAProxy's `ssl` starts TLS at once: each connection fails, unless both sides are of PostgreSQL 17 or later and use direct TLS.",
    remedy: "Remove `ssl`: TLS passes through HAProxy from the client to PostgreSQL. For direct TLS write `alpn postgresql`, and let clients use `sslnegotiation=direct`.",
}

/// The first version that accepts TLS without an SSLRequest.
const DIRECT_TLS: u16 = 17;
/// The name of the protocol in direct TLS.
const ALPN: &str = "postgresql";

fn is_postgres_server(server: &Server<'_>) -> bool {
    let is_known = server.port().is_some_and(|port| is_postgres_port(port) || is_pooler_port(port));
    is_known || server.is_checked_at_patroni()
}

fn send_proxy(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    const WORDS: [&str; 4] =
        ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"];
    for proxy in haproxy.model.postgres() {
        let word = |server: &Server<'_>| WORDS.into_iter().find(|word| server.settings.has(word));
        let sending = proxy.members().filter(|server| is_postgres_server(server));
        let sending: Vec<_> = sending.filter_map(|server| Some((server, word(server)?))).collect();
        if let Some((first, word)) = sending.first() {
            let names = listed(sending.iter().map(|(server, _)| server.name));
            let message = format!("{names} of {} get a PROXY header by `{word}`", proxy.title());
            findings.add(first.line, message);
        }
    }
}

fn tls(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let is_old = haproxy.options.postgres.is_some_and(|version| version < DIRECT_TLS);
    let model = &haproxy.model;
    for proxy in model.proxies.iter().filter(|proxy| model.is_way_to_postgres(proxy)) {
        for line in
            proxy.lines_of("bind").filter(|line| line.words.iter().any(|word| word.is("ssl")))
        {
            let is_direct = !is_old && alpn(line) == Some(ALPN);
            if !is_direct && line.words.iter().all(|word| word.known().is_some()) {
                let message =
                    format!("clients of {} ask for TLS before they begin it", proxy.title());
                findings.add(line, message);
            }
        }
        towards_servers(proxy, is_old, findings);
    }
}

fn towards_servers(proxy: &Proxy<'_>, is_old: bool, findings: &mut Findings) {
    let is_wrong = |server: &&Server<'_>| {
        let is_direct = !is_old && server.settings.text("alpn") == ALPN;
        server.settings.has("ssl") && !is_direct && is_postgres_server(server)
    };
    let wrong: Vec<_> = proxy.members().filter(is_wrong).collect();
    if let Some(first) = wrong.first() {
        let names = listed(wrong.iter().map(|server| server.name));
        let why = match is_old {
            true => "this PostgreSQL takes TLS only after an SSLRequest",
            false => {
                "PostgreSQL takes TLS after an SSLRequest, or from version 17 on with `alpn postgresql`"
            }
        };
        findings.add(first.line, format!("`ssl` towards {names} of {}: {why}", proxy.title()));
    }
}

fn alpn(line: &Line) -> Option<&str> {
    let at = line.words.iter().position(|word| word.is("alpn"))?;
    Some(line.word(at + 1))
}
