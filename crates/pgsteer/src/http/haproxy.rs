//! The steered HAProxys in the status document.

use std::sync::Arc;

use crate::haproxy::answer::{Admin, Process};
use crate::haproxy::order::Wanted;
use crate::haproxy::view::{ServerView, View};
use crate::stats::Stats;
use crate::status::document::{Haproxy, HaproxyServer};

/// All steered HAProxys.
pub fn haproxys(stats: &Stats) -> Vec<Haproxy> {
    stats.haproxys.all().iter().map(haproxy).collect()
}

fn haproxy((socket, view): (&String, &Arc<View>)) -> Haproxy {
    let View { trouble, process, lacks, servers, commands } = view.as_ref();
    let of_process = |get: fn(&Process) -> u64| process.as_ref().map(get);
    Haproxy {
        socket: socket.clone(),
        trouble: trouble.clone(),
        haproxy_version: process.as_ref().map(|process| process.version.clone()),
        pid: process.as_ref().map(|process| process.pid),
        haproxy_uptime_seconds: of_process(|process| process.uptime_seconds),
        lacks: lacks.clone(),
        commands_total: *commands,
        servers: servers.iter().map(server).collect(),
    }
}

fn server(view: &ServerView) -> HaproxyServer {
    let ServerView { key, server, .. } = view;
    HaproxyServer {
        service: view.service.clone(),
        member: view.member.clone(),
        backend: key.backend.clone(),
        server: key.server.clone(),
        order: order(view.order.wanted).to_owned(),
        status: server.status.clone(),
        admin: admin(server.admin).to_owned(),
        weight: server.weight,
        health_check: Some(server.check.clone()).filter(|check| !check.is_empty()),
        sessions: server.sessions,
        queue: server.queue,
        changed_seconds: server.changed_seconds,
        session_seconds: server.session_seconds,
        difference: view.difference.map(|difference| difference.sentence(key, server)),
    }
}

/// The word for an order.
fn order(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Serve => "serve",
        Wanted::Pause => "pause",
        Wanted::End => "end",
    }
}

/// The word for what a person has set.
fn admin(admin: Admin) -> &'static str {
    match admin {
        Admin::Ready => "ready",
        Admin::Drain => "drain",
        Admin::Maint => "maint",
        Admin::Unresolved => "unresolved",
    }
}
