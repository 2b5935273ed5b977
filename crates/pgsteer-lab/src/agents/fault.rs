//! The faults of the table in docs/AGENT.md: the act on the primary's node, and the state that
//! HAProxy must show from a given time on.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::agent_processes::AgentProcesses;
use super::assessment::{Expected, assess};
use super::fake_patroni::{FakePatroni, INCOMPLETE_JSON};
use super::server_states::StateWatch;
use crate::lab::Lab;
use crate::truth::{Standing, Truth};

/// Longer than any reaction of the cluster itself.
const CLUSTER_LIMIT: Duration = Duration::from_secs(40);

/// The act on the node of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Switchover,
    PatroniDown,
    PatroniHung,
    PatroniInvalid,
    PostgresDown,
    PostgresHung,
    PostgresInRecovery,
    PoolerDown,
    PoolerNowhere,
    PoolerReplica,
    PoolerReloaded,
    AgentKilled,
}

/// A part of a fault, during which the correct state does not change.
#[derive(Debug, Clone)]
pub struct Phase {
    /// The name in the table.
    pub name: &'static str,
    pub expected: Vec<Expected>,
    /// The time at which the observation ended.
    pub end: Instant,
}

/// How long each phase is observed.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The least time, because a state that is correct now can still become wrong.
    pub least: Duration,
    /// The longest time, if the state is not correct before.
    pub most: Duration,
}

/// The cluster, the observers and the backends of one run.
#[derive(Debug)]
pub struct Scene<'a> {
    pub lab: &'a Lab,
    pub truth: &'a Truth,
    pub watch: &'a StateWatch,
    /// The backends whose states are waited for.
    pub backends: &'a [&'a str],
    pub patience: Patience,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Switchover,
        Self::PatroniDown,
        Self::PatroniHung,
        Self::PatroniInvalid,
        Self::PostgresDown,
        Self::PostgresHung,
        Self::PostgresInRecovery,
        Self::PoolerDown,
        Self::PoolerNowhere,
        Self::PoolerReplica,
        Self::PoolerReloaded,
        Self::AgentKilled,
    ];

    /// The time that has to pass before pgsteer can notice the fault at all. A server counts as
    /// hung if it does not answer within `timeout`; a calm cluster is probed every 250 ms. Through
    /// a pooler pgsteer logs in again every 5 s, or a tenth later. After the end of an agent
    /// process HAProxy relies on the health check beside it, which reacts in the second second.
    pub fn notice(self, timeout: Duration) -> Duration {
        match self {
            Self::PostgresHung => Duration::from_millis(250) + timeout,
            Self::PoolerReloaded => Duration::from_millis(5_500),
            Self::AgentKilled => Duration::from_secs(2),
            _ => Duration::ZERO,
        }
    }

    /// Causes the fault on a healthy cluster whose states HAProxy shows correctly. [`Lab::reset`]
    /// and [`AgentProcesses::restart_stopped`] undo it.
    pub fn happen(
        self,
        scene: &Scene<'_>,
        agent_sets: &mut [AgentProcesses],
    ) -> Result<Vec<Phase>> {
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
            Self::PatroniInvalid => {
                scene.lab.kill_patroni(&old)?;
                let _fake =
                    FakePatroni::start(scene.lab.member(&old)?.patroni_addr(), INCOMPLETE_JSON)?;
                let names = [
                    "Patroni answers invalid JSON",
                    "Patroni answers invalid JSON, another is promoted",
                ];
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
            Self::AgentKilled => scene.agent_killed(&old, agent_sets),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Switchover => "switchover",
            Self::PatroniDown => "Patroni down",
            Self::PatroniHung => "Patroni hung",
            Self::PatroniInvalid => "Patroni answers invalid JSON",
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
    /// The new primary is up from its first write on; the old one is not up from its last write on.
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

    /// PostgreSQL runs on without its Patroni until the cluster has another primary. The old
    /// primary gets no notice of that and keeps taking writes.
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

    /// Runs in maintenance mode, because Patroni would otherwise start PostgreSQL again at once.
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

    /// The primary restarts as a standby, and the cluster elects no new primary.
    fn postgres_in_recovery(&self, old: &str) -> Result<Vec<Phase>> {
        self.lab.pause()?;
        let began = Instant::now();
        self.lab.restart_as_standby(old)?;
        self.truth.wait_for_standing(old, Standing::ReadOnly, CLUSTER_LIMIT)?;
        let log = self.truth.log();
        let ceased = log.iter().find(|event| event.member == old && event.at > began);
        let ceased = ceased.context("the primary has not been seen to cease")?;
        let phase = self.look("PostgreSQL in recovery", vec![not_up(old, ceased.at)]);
        // Without this promotion Patroni takes long to choose the next primary.
        self.lab.promote_by_hand(old)?;
        Ok(vec![phase])
    }

    /// Changes PgBouncer's file and reloads it. A reload keeps the existing sessions on their
    /// server.
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

    fn agent_killed(&self, old: &str, agent_sets: &mut [AgentProcesses]) -> Result<Vec<Phase>> {
        for agents_of_members in agent_sets {
            agents_of_members.kill(old)?;
        }
        let first = self.look("agent killed", vec![up(old, Instant::now())]);
        Ok(vec![first, self.switchover("agent killed, then switchover", old)?])
    }

    /// Waits until all backends show the expected state, or until the time limits of [`Patience`].
    fn look(&self, name: &'static str, expected: Vec<Expected>) -> Phase {
        let began = Instant::now();
        loop {
            let now = Instant::now();
            let log = self.watch.log();
            let is_right = self.backends.iter().all(|backend| {
                expected.iter().all(|each| assess(&log, backend, each, now).is_right())
            });
            let passed = now - began;
            if passed >= self.patience.most || (is_right && passed >= self.patience.least) {
                return Phase { name, expected, end: now };
            }
            std::thread::sleep(super::LOOK_EVERY);
        }
    }

    /// Waits until every backend has the primary up and no other server.
    pub fn settle(&self, limit: Duration) -> Result<()> {
        let primary = self.lab.primary()?.name.clone();
        crate::patience::wait_for("HAProxy to show the right state of each server", limit, || {
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
