//! The faults of the table in docs/AGENT.md: what is done to the primary's node, and what HAProxy
//! ought to believe from which moment on.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::belief::Watch;
use super::crew::Crew;
use super::judgement::judge;
use super::puppet::{NONSENSE, Puppet};
use crate::lab::Lab;
use crate::truth::{Standing, Truth};

/// Longer than the cluster needs for whatever it does by itself.
const CLUSTER_LIMIT: Duration = Duration::from_secs(40);

/// What is done to the node of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Switchover,
    PatroniDown,
    PatroniHung,
    PatroniNonsense,
    PostgresDown,
    PostgresHung,
    PostgresInRecovery,
    PoolerDown,
    PoolerNowhere,
    PoolerReplica,
    PoolerReloaded,
    AgentKilled,
}

/// What HAProxy should believe of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The member; every backend of the scene names its servers after them.
    pub server: String,
    pub up: bool,
    /// From when on that is the truth.
    pub from: Instant,
}

/// A part of a fault, with one truth.
#[derive(Debug, Clone)]
pub struct Phase {
    /// As it stands in the table.
    pub name: &'static str,
    pub expected: Vec<Expected>,
    /// When the look at it was over.
    pub end: Instant,
}

/// How long each phase is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// So long in any case, because what is right now may yet become wrong.
    pub least: Duration,
    /// So long if it is not right before.
    pub most: Duration,
}

/// All that takes part.
#[derive(Debug)]
pub struct Scene<'a> {
    pub lab: &'a Lab,
    pub truth: &'a Truth,
    pub watch: &'a Watch,
    /// Those that are waited for.
    pub backends: &'a [&'a str],
    pub patience: Patience,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Switchover,
        Self::PatroniDown,
        Self::PatroniHung,
        Self::PatroniNonsense,
        Self::PostgresDown,
        Self::PostgresHung,
        Self::PostgresInRecovery,
        Self::PoolerDown,
        Self::PoolerNowhere,
        Self::PoolerReplica,
        Self::PoolerReloaded,
        Self::AgentKilled,
    ];

    /// The time that has to pass before pgsteer can notice it at all, where a server is taken for hung
    /// that has not answered within `timeout`; at rest it is asked every 250 ms. Through a pooler it logs in afresh every 5 s, or a tenth later. If an agent is
    /// gone, it is the check beside it that HAProxy hears, in the second second.
    pub fn notice(self, timeout: Duration) -> Duration {
        match self {
            Self::PostgresHung => Duration::from_millis(250) + timeout,
            Self::PoolerReloaded => Duration::from_millis(5_500),
            Self::AgentKilled => Duration::from_secs(2),
            _ => Duration::ZERO,
        }
    }

    /// Lets it happen, on a healthy cluster that HAProxy is right about. Undoing is [`Lab::reset`]
    /// and [`Crew::mend`].
    pub fn happen(self, scene: &Scene<'_>, crews: &mut [Crew]) -> Result<Vec<Phase>> {
        let old = scene.lab.primary()?.name.clone();
        match self {
            Self::Switchover => Ok(vec![scene.switchover("switchover", &old)?]),
            Self::PatroniDown => {
                scene.lab.kill_patroni(&old)?;
                scene.without_patroni(&old, "Patroni down", "Patroni down, another is promoted")
            }
            Self::PatroniHung => {
                scene.lab.freeze_patroni(&old)?;
                scene.without_patroni(&old, "Patroni hung", "Patroni hung, another is promoted")
            }
            Self::PatroniNonsense => {
                scene.lab.kill_patroni(&old)?;
                let _nonsense = Puppet::say(scene.lab.member(&old)?.patroni_addr(), NONSENSE)?;
                let names =
                    ["Patroni talks nonsense", "Patroni talks nonsense, another is promoted"];
                scene.without_patroni(&old, names[0], names[1])
            }
            Self::PostgresDown => scene.postgres_down(&old),
            Self::PostgresHung => scene.postgres_hung(&old),
            Self::PostgresInRecovery => scene.postgres_in_recovery(&old),
            Self::PoolerDown => {
                let from = Instant::now();
                scene.lab.stop_pgbouncer(&old)?;
                Ok(vec![scene.look("PgBouncer down", vec![not_up(&old, from)])])
            }
            Self::PoolerNowhere => {
                let nowhere = scene.lab.member(&old)?.nowhere();
                scene.pooler_astray(
                    "PgBouncer leads nowhere",
                    &old,
                    nowhere,
                    Lab::restart_pgbouncer,
                )
            }
            Self::PoolerReplica => {
                let replica = scene.a_replica()?;
                scene.pooler_astray(
                    "PgBouncer leads to a replica",
                    &old,
                    replica,
                    Lab::restart_pgbouncer,
                )
            }
            Self::PoolerReloaded => {
                let replica = scene.a_replica()?;
                scene.pooler_astray(
                    "PgBouncer is led to a replica by a reload",
                    &old,
                    replica,
                    |_, _| Ok(()),
                )
            }
            Self::AgentKilled => scene.agent_killed(&old, crews),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Switchover => "switchover",
            Self::PatroniDown => "Patroni down",
            Self::PatroniHung => "Patroni hung",
            Self::PatroniNonsense => "Patroni talks nonsense",
            Self::PostgresDown => "PostgreSQL down",
            Self::PostgresHung => "PostgreSQL hung",
            Self::PostgresInRecovery => "PostgreSQL in recovery",
            Self::PoolerDown => "PgBouncer down",
            Self::PoolerNowhere => "PgBouncer leads nowhere",
            Self::PoolerReplica => "PgBouncer leads to a replica",
            Self::PoolerReloaded => "PgBouncer is led to a replica by a reload",
            Self::AgentKilled => "agent killed",
        })
    }
}

impl Scene<'_> {
    /// The new one is up from its first write on, the old one is not from its last.
    fn switchover(&self, name: &'static str, old: &str) -> Result<Phase> {
        let began = Instant::now();
        let order = self.lab.order_switchover(None)?;
        let new = self.truth.wait_for_successor(old, CLUSTER_LIMIT)?;
        order.wait()?;
        let log = self.truth.log();
        let ceased = log
            .iter()
            .find(|event| event.member == old && event.at > began)
            .context("the old primary has not been seen to cease")?;
        Ok(self.look(name, vec![not_up(old, ceased.at), up(&new.member, new.at)]))
    }

    /// PostgreSQL goes on without its Patroni until the cluster has another primary; the old one
    /// does not hear of that, and goes on to take writes.
    fn without_patroni(
        &self,
        old: &str,
        alone: &'static str,
        rivalled: &'static str,
    ) -> Result<Vec<Phase>> {
        let first = self.look(alone, vec![up(old, Instant::now())]);
        self.lab.expire_lock()?;
        let new = self.truth.wait_for_successor(old, CLUSTER_LIMIT)?;
        let expected = vec![not_up(old, new.at), up(&new.member, new.at)];
        Ok(vec![first, self.look(rivalled, expected)])
    }

    /// In maintenance mode, because Patroni would start it again at once.
    fn postgres_down(&self, old: &str) -> Result<Vec<Phase>> {
        self.lab.pause()?;
        self.lab.stop_postgres(old)?;
        let event = self.truth.wait_for_standing(old, Standing::Down, CLUSTER_LIMIT)?;
        Ok(vec![self.look("PostgreSQL down", vec![not_up(old, event.at)])])
    }

    fn postgres_hung(&self, old: &str) -> Result<Vec<Phase>> {
        let from = Instant::now();
        self.lab.freeze_postgres(old)?;
        let phase = self.look("PostgreSQL hung", vec![not_up(old, from)]);
        self.lab.thaw_postgres(old)?;
        Ok(vec![phase])
    }

    /// The primary comes back as a standby, and nobody takes its place.
    fn postgres_in_recovery(&self, old: &str) -> Result<Vec<Phase>> {
        self.lab.pause()?;
        let began = Instant::now();
        self.lab.restart_as_standby(old)?;
        self.truth.wait_for_standing(old, Standing::ReadOnly, CLUSTER_LIMIT)?;
        let log = self.truth.log();
        let ceased = log.iter().find(|event| event.member == old && event.at > began);
        let ceased = ceased.context("the primary has not been seen to cease")?;
        let phase = self.look("PostgreSQL in recovery", vec![not_up(old, ceased.at)]);
        // Patroni would take long to decide who shall be primary now.
        self.lab.promote_by_hand(old)?;
        Ok(vec![phase])
    }

    /// Somebody has changed its file. A reload leaves the sessions that are there where they are.
    fn pooler_astray(
        &self,
        name: &'static str,
        old: &str,
        to: SocketAddr,
        and: impl Fn(&Lab, &str) -> Result<()>,
    ) -> Result<Vec<Phase>> {
        let from = Instant::now();
        self.lab.lead_pgbouncer(old, to)?;
        and(self.lab, old)?;
        Ok(vec![self.look(name, vec![not_up(old, from)])])
    }

    fn a_replica(&self) -> Result<SocketAddr> {
        let replicas = self.lab.replicas()?;
        Ok(replicas.first().context("there is no replica")?.postgres_addr())
    }

    fn agent_killed(&self, old: &str, crews: &mut [Crew]) -> Result<Vec<Phase>> {
        for crew in crews {
            crew.kill(old)?;
        }
        let first = self.look("agent killed", vec![up(old, Instant::now())]);
        Ok(vec![first, self.switchover("agent killed, then switchover", old)?])
    }

    /// Waits until all backends are right, or for as long as patience lasts.
    fn look(&self, name: &'static str, expected: Vec<Expected>) -> Phase {
        let began = Instant::now();
        loop {
            let now = Instant::now();
            let log = self.watch.log();
            let is_right = self.backends.iter().all(|backend| {
                expected.iter().all(|each| judge(&log, backend, each, now).is_right())
            });
            let passed = now - began;
            if passed >= self.patience.most || (is_right && passed >= self.patience.least) {
                return Phase { name, expected, end: now };
            }
            std::thread::sleep(super::LOOK_EVERY);
        }
    }

    /// Waits until every backend has the primary up and nobody else.
    pub fn settle(&self, limit: Duration) -> Result<()> {
        let primary = self.lab.primary()?.name.clone();
        crate::patience::wait_for("HAProxy to be right about everybody", limit, || {
            let now = self.watch.now();
            let wrong = self.backends.iter().find(|backend| now.up(backend) != [&*primary]);
            wrong.map_or(Ok(()), |backend| {
                Err(format!("{backend} has {:?} up, {primary} is primary", now.up(backend)))
            })
        })
    }
}

fn up(server: &str, from: Instant) -> Expected {
    Expected { server: server.to_owned(), up: true, from }
}

fn not_up(server: &str, from: Instant) -> Expected {
    Expected { server: server.to_owned(), up: false, from }
}
