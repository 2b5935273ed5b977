//! The metrics of the steered HAProxys.

use std::fmt;

use super::Facts;
use super::page::{Label, Page};
use crate::haproxy::answer::Admin;
use crate::haproxy::view::ServerView;

impl Facts {
    pub(super) fn haproxys(&self, page: &mut Page<'_>) -> fmt::Result {
        let views = self.stats.haproxys.all();
        let socket = |socket| [("socket", socket)];
        let sockets = || views.iter().map(|(name, view)| (name.as_str(), view));
        page.gauge(
            "pgsteer_haproxy_steered",
            "1 while this HAProxy is steered, 0 while its socket fails or refuses a command.",
            sockets().map(|(name, view)| (socket(name), u64::from(view.trouble.is_none()))),
        )?;
        page.counter(
            "pgsteer_haproxy_commands",
            "Commands that were sent to this HAProxy.",
            sockets().map(|(name, view)| (socket(name), view.commands)),
        )?;
        let servers =
            || sockets().flat_map(|(name, view)| view.servers.iter().map(move |it| (name, it)));
        page.gauge(
            "pgsteer_haproxy_server_up",
            "1 if HAProxy sends new sessions to this server.",
            servers().map(|(name, it)| (labels(name, it), u64::from(it.server.gets_sessions()))),
        )?;
        page.gauge(
            "pgsteer_haproxy_server_by_hand",
            "1 if a person has set this server to drain or maintenance.",
            servers().map(|(name, it)| {
                let by_hand = matches!(it.server.admin, Admin::Drain | Admin::Maint);
                (labels(name, it), u64::from(by_hand))
            }),
        )?;
        page.gauge(
            "pgsteer_haproxy_server_differs",
            "1 if the state of this server has differed from its gate for more than 2 seconds.",
            servers().map(|(name, it)| (labels(name, it), u64::from(it.difference.is_some()))),
        )?;
        page.gauge(
            "pgsteer_haproxy_server_sessions",
            "Sessions at this server, in HAProxy's count.",
            servers().map(|(name, it)| (labels(name, it), it.server.sessions)),
        )?;
        page.gauge(
            "pgsteer_haproxy_server_queue",
            "Connections that wait for a place at this server, in HAProxy's count.",
            servers().map(|(name, it)| (labels(name, it), it.server.queue)),
        )
    }
}

fn labels<'a>(socket: &'a str, it: &'a ServerView) -> ([Label<'a>; 2], [Label<'a>; 2]) {
    let service = [("service", it.service.as_str()), ("member", it.member.as_str())];
    (service, [("socket", socket), ("backend", it.key.backend.as_str())])
}
