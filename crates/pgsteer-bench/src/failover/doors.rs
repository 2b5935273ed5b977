//! The four paths to the primary, side by side on one cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::libpq;
use super::record::Log;
use super::traffic::Traffic;
use crate::bench_setup::{HaproxyWish, Pgsteer, start_haproxy, start_pgsteer, wait_for_door};
use pgsteer_lab::Lab;
use pgsteer_lab::Spawned;

/// A path to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    Pgsteer,
    Template,
    Tuned,
    Libpq,
}

impl Door {
    pub const ALL: [Self; 4] = [Self::Pgsteer, Self::Template, Self::Tuned, Self::Libpq];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pgsteer => "pgsteer",
            Self::Template => "HAProxy, Patroni's template",
            Self::Tuned => "HAProxy, 500 ms / 1 / 1",
            Self::Libpq => "libpq's host list",
        }
    }
}

/// As in Patroni's documentation, except for `maxconn`: its 100 would itself refuse clients.
const TEMPLATE: HaproxyWish<'_> = HaproxyWish {
    name: "haproxy-template",
    timeouts: "    retries 2\n    timeout client 30m\n    timeout connect 4s\n    \
               timeout server 30m\n    timeout check 5s\n",
    checks: "inter 3s fall 3 rise 2 on-marked-down shutdown-sessions",
};

/// As quick as an operator would dare: a check every half second, and one answer counts.
const TUNED: HaproxyWish<'_> = HaproxyWish {
    name: "haproxy-tuned",
    timeouts: "    retries 2\n    option redispatch\n    timeout client 30m\n    \
               timeout connect 1s\n    timeout server 30m\n    timeout check 1s\n",
    checks: "inter 500ms fastinter 500ms downinter 500ms fall 1 rise 1 \
             on-marked-down shutdown-sessions",
};

/// The three processes; libpq needs none.
#[derive(Debug)]
pub struct Doors {
    pub pgsteer: Pgsteer,
    pub template: Spawned,
    pub tuned: Spawned,
    template_addr: SocketAddr,
    tuned_addr: SocketAddr,
}

impl Doors {
    /// Starts them and waits until each serves a client.
    pub fn open(lab: &Lab, pgsteer: &Path) -> Result<Self> {
        let pgsteer = start_pgsteer(lab, pgsteer, "pgsteer")?;
        let (template, template_addr) = start_haproxy(lab, &TEMPLATE)?;
        let (tuned, tuned_addr) = start_haproxy(lab, &TUNED)?;
        wait_for_door(Door::Pgsteer.name(), pgsteer.write)?;
        wait_for_door(Door::Template.name(), template_addr)?;
        wait_for_door(Door::Tuned.name(), tuned_addr)?;
        Ok(Self { pgsteer, template, tuned, template_addr, tuned_addr })
    }

    /// Starts the traffic on all four paths.
    pub fn traffic(&self, lab: &Lab, every: Duration) -> Result<AllTraffic> {
        Ok(AllTraffic {
            pgsteer: Traffic::start("pgsteer's door", self.pgsteer.write, every)?,
            template: Traffic::start("template's door", self.template_addr, every)?,
            tuned: Traffic::start("tuned door", self.tuned_addr, every)?,
            libpq: libpq::start(lab, every)?,
        })
    }
}

/// The traffic of all paths.
#[derive(Debug)]
pub struct AllTraffic {
    pgsteer: Traffic,
    template: Traffic,
    tuned: Traffic,
    libpq: Spawned,
}

impl AllTraffic {
    /// Ends it. Returns what the clients of each path saw, in the order of [`Door::ALL`].
    pub fn stop(self) -> Result<Vec<(Door, Log)>> {
        Ok(vec![
            (Door::Pgsteer, self.pgsteer.stop()?),
            (Door::Template, self.template.stop()?),
            (Door::Tuned, self.tuned.stop()?),
            (Door::Libpq, libpq::stop(self.libpq)?),
        ])
    }
}
