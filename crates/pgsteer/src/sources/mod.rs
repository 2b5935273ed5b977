//! Sources: they report what they see of each member, and hold no opinion.
//!
//! A supervisor follows the plan and keeps, per member in it, one task each for Patroni, the
//! tether and the resolver. All of them speak into one bounded channel. They know neither
//! the core's verdicts nor the outputs; the plan is the only word that comes back to them.

mod beat;
mod dial;
mod discovery;
mod http;
mod patroni;
mod resolver;
mod secret;
mod supervisor;
mod tether;

use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use pgsteer_core::claim::{Claim, Fact, Report};
use pgsteer_core::config::{ClusterConfig, Membership, PatroniConfig};
use pgsteer_core::names::MemberName;
use pgsteer_core::plan::Plan;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::tls::{self, Identity, Trust};

use self::discovery::Discovery;
use self::http::{Base, Client};
use self::supervisor::Supervisor;
use self::tether::Login;

/// All sources of a cluster, for as long as this lives: dropping it ends every task.
#[derive(Debug)]
pub struct Sources {
    _tasks: Vec<Task>,
}

/// Starts the sources of `cluster` on the current runtime.
///
/// # Errors
/// A password, certificate or key file that cannot be used, or an address of Patroni that is
/// none. The message names the file or the address and never shows a secret.
pub fn start(
    cluster: &ClusterConfig,
    clock: Clock,
    reports: mpsc::Sender<Report>,
    plan: watch::Receiver<Arc<Plan>>,
) -> anyhow::Result<Sources> {
    let hint = Hint::default();
    let mut tasks = Vec::new();
    let mut http = None;
    if let Membership::Patroni(patroni) = &cluster.members {
        let client = Arc::new(client(patroni)?);
        let discovery = Discovery {
            http: client.clone(),
            seeds: seeds(patroni)?,
            plan: plan.clone(),
            hint: hint.clone(),
            clock,
            reports: reports.clone(),
        };
        tasks.push(Task::spawn(discovery.run()));
        http = Some(client);
    }
    let login = match &cluster.check {
        Some(check) => Some(Arc::new(Login::read(check)?)),
        None => None,
    };
    let supervisor = Supervisor { http, login, hint, clock, reports, plan };
    tasks.push(Task::spawn(supervisor.run()));
    Ok(Sources { _tasks: tasks })
}

fn client(patroni: &PatroniConfig) -> anyhow::Result<Client> {
    let identity = match (&patroni.cert_file, &patroni.key_file) {
        (Some(cert_file), Some(key_file)) => Some(Identity { cert_file, key_file }),
        // A PEM file may hold the certificate and its key together.
        (Some(both), None) => Some(Identity { cert_file: both, key_file: both }),
        (None, _) => None,
    };
    let trust = match &patroni.ca_file {
        Some(file) => Trust::Authorities(file),
        None => Trust::System,
    };
    let needs_files = patroni.ca_file.is_some() || identity.is_some();
    let tls = match needs_files {
        true => Some(tls::client_config(trust, identity)?),
        false => None,
    };
    Ok(Client::new(patroni.timeout, tls))
}

fn seeds(patroni: &PatroniConfig) -> anyhow::Result<Vec<Base>> {
    patroni
        .urls
        .iter()
        .map(|url| Base::parse(url).map_err(|why| anyhow!("Patroni: {why}")))
        .collect()
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Task {
    /// Runs `work` until nobody listens to it any more, or until this is dropped.
    fn spawn(work: impl Future<Output = Gone> + Send + 'static) -> Task {
        Task(tokio::spawn(async {
            let Gone = work.await;
        }))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whoever a source works for has ended, so it ends too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone;

/// Tells another source that a look is worth its while: a failed Patroni tells discovery, a
/// failed tether the resolver. Hints do not queue up.
#[derive(Clone, Debug, Default)]
struct Hint(Arc<Notify>);

impl Hint {
    fn give(&self) {
        self.0.notify_one();
    }

    async fn given(&self) {
        self.0.notified().await;
    }
}

/// Where the sources of one member say what they saw.
#[derive(Clone, Debug)]
struct Reporter {
    member: MemberName,
    clock: Clock,
    reports: mpsc::Sender<Report>,
}

impl Reporter {
    async fn claim(&self, asked: Instant, fact: Fact) -> Result<(), Gone> {
        let claim = Claim { member: self.member.clone(), asked_at: self.clock.moment(asked), fact };
        let sent = self.reports.send(Report::Claim(claim)).await;
        sent.map_err(|_| Gone)
    }
}
