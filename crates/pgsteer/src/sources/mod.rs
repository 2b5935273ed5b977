//! Sources: they report their observations of each member and decide nothing.
//!
//! A supervisor follows the plan. For each member in the plan it runs one task each for Patroni,
//! the tether, every pooler and the resolver. Discovery and the watch of etcd run independently of
//! it. All sources report into one bounded channel and restart after a panic. They know neither the
//! core's decisions nor the outputs; the plan is their only input from the core.

mod absence;
mod dial;
mod discovery;
mod etcd;
#[cfg(test)]
pub mod fake;
mod files;
mod http;
mod new_sessions;
mod patroni;
mod pooler;
mod probe_timer;
mod prompt;
mod resolver;
mod supervisor;
mod task;
mod tether;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use pgsteer_core::claim::{Claim, Fact, Found, Report};
use pgsteer_core::names::MemberName;
use pgsteer_core::pace::RUN_ON;
use pgsteer_core::plan::Plan;
use pgsteer_core::settings::{ClusterConfig, Membership, PatroniConfig, Verify};
use tokio::sync::{Notify, mpsc, watch};

use crate::clock::Clock;
use crate::refusal_hints::RefusalHints;
use crate::secret::Secret;
use crate::tls::{self, Identity, Trust};

use self::discovery::Discovery;
use self::files::Contents;
use self::http::Client;
use crate::base::Base;

use self::supervisor::Supervisor;
use self::task::{Gone, Task};
use self::tether::Login;

/// All sources of a cluster. Dropping it ends every task.
#[derive(Debug)]
pub struct Sources {
    files: Contents,
    _tasks: Vec<Task>,
}

/// The files and addresses that the sources of a cluster need, read and checked.
pub struct Prepared {
    files: Contents,
    patroni: Option<Arc<Client>>,
    login: Option<Arc<Login>>,
    etcd: Option<etcd::Settings>,
}

/// Reads the files that the configuration of `cluster` names, and parses its addresses.
///
/// # Errors
/// A password, certificate or key file that cannot be used, or an invalid address of Patroni. The
/// message names the file or the address and never shows a secret.
pub fn prepare(cluster: &ClusterConfig) -> anyhow::Result<Prepared> {
    let patroni = match &cluster.members {
        Membership::Patroni(patroni) => {
            seeds(patroni)?;
            Some(Arc::new(client(patroni)?))
        }
        Membership::Listed(_) => None,
    };
    let login = match &cluster.check {
        Some(check) => Some(Arc::new(Login::read(check)?)),
        None => None,
    };
    let etcd = cluster.etcd.as_ref().map(etcd::Settings::read).transpose()?;
    Ok(Prepared { files: Contents::of(cluster), patroni, login, etcd })
}

impl Prepared {
    /// Starts the sources on the current runtime.
    pub fn start(
        self,
        clock: Clock,
        reports: mpsc::Sender<Report>,
        plan: watch::Receiver<Arc<Plan>>,
        refusal_hints: &Arc<RefusalHints>,
    ) -> Sources {
        let hint = Hint::default();
        let mut tasks = Vec::new();
        let mut http = None;
        if let Some(client) = self.patroni {
            let discovery = Discovery {
                http: client.clone(),
                plan: plan.clone(),
                hint: hint.clone(),
                clock,
                reports: reports.clone(),
            };
            tasks.push(Task::keep("member discovery", discovery, Discovery::run));
            http = Some(client);
        }
        if let Some(settings) = self.etcd {
            let (plan, reports) = (plan.clone(), reports.clone());
            let watcher = etcd::Watcher { settings: Arc::new(settings), plan, clock, reports };
            tasks.push(Task::keep("the watch of etcd", watcher, etcd::Watcher::run));
        }
        let (login, refusal_hints) = (self.login, Arc::clone(refusal_hints));
        let supervisor = Supervisor { http, login, hint, refusal_hints, clock, reports, plan };
        tasks.push(Task::keep("the supervisor of the sources", supervisor, Supervisor::run));
        Sources { files: self.files, _tasks: tasks }
    }
}

impl Sources {
    /// Returns true if the files had the same contents at the start of these sources.
    pub fn know_the_files_of(&self, prepared: &Prepared) -> bool {
        self.files == prepared.files
    }
}

/// Returns the members that Patroni lists now, for callers that do not follow the cluster.
///
/// # Errors
/// No Patroni returns a list, or a file or an address cannot be used.
pub async fn find_members(patroni: &PatroniConfig) -> anyhow::Result<Vec<Found>> {
    let cluster = discovery::ask_once(&client(patroni)?, &seeds(patroni)?).await?;
    match cluster.skipped.as_slice() {
        [] => Ok(cluster.members),
        // Rendered files that silently omit a member would stay wrong.
        skipped => bail!("not all members have an address yet: {}", skipped.join("; ")),
    }
}

/// Returns the password in the first line of `file`.
///
/// # Errors
/// A file that cannot be used; the message names it and shows nothing of its contents.
pub fn read_secret(file: &Path) -> anyhow::Result<String> {
    Secret::read(file).map(|secret| secret.expose().to_owned())
}

fn client(patroni: &PatroniConfig) -> anyhow::Result<Client> {
    let PatroniConfig { verify, ca_file, cert_file, key_file, timeout, .. } = patroni;
    let trust = Trust { verify: *verify, ca_file: ca_file.as_deref() };
    let client = http_client(RUN_ON.max(*timeout), trust, cert_file, key_file)?;
    Ok(client.with_connect_limit(*timeout))
}

fn http_client(
    limit: Duration,
    trust: Trust<'_>,
    cert_file: &Option<PathBuf>,
    key_file: &Option<PathBuf>,
) -> anyhow::Result<Client> {
    let identity = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(Identity { cert_file, key_file }),
        // The configuration has both or neither.
        _ => None,
    };
    let is_usual = trust.verify == Verify::Full && trust.ca_file.is_none() && identity.is_none();
    let tls = if is_usual { None } else { Some(tls::client_config(trust, identity)?) };
    Ok(Client::new(limit, tls))
}

fn seeds(patroni: &PatroniConfig) -> anyhow::Result<Vec<Base>> {
    patroni
        .urls
        .iter()
        .map(|url| Base::parse(url).map_err(|why| anyhow!("Patroni: {why}")))
        .collect()
}

/// Asks another source to probe early: a failed request to Patroni notifies discovery, a failed
/// tether notifies the resolver. Hints do not queue up.
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

/// Reports the observations of one member's sources.
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

#[cfg(test)]
mod tests {
    use pgsteer_core::names::{ClusterName, Endpoint};
    use pgsteer_core::plan::{Ask, Pace};
    use pgsteer_core::settings::{CheckConfig, RequireAuth, SplitBrain, SslMode};

    use super::*;

    fn cluster(urls: &[&str], password_file: Option<PathBuf>) -> ClusterConfig {
        ClusterConfig {
            name: Some(ClusterName::new("demo").unwrap()),
            members: Membership::Patroni(PatroniConfig {
                urls: urls.iter().map(|url| (*url).to_owned()).collect(),
                verify: Default::default(),
                ca_file: None,
                cert_file: None,
                key_file: None,
                timeout: Duration::from_secs(1),
                pins: Default::default(),
            }),
            check: Some(CheckConfig {
                user: "pgcheck".to_owned(),
                dbname: "postgres".to_owned(),
                password_file,
                sslmode: SslMode::Disable,
                require_auth: RequireAuth::usual(SslMode::Disable),
                ca_file: None,
                timeout: Duration::from_secs(1),
            }),
            etcd: None,
            split_brain: SplitBrain::Block,
            patroni_loss_grace: Duration::from_secs(1),
            silence: Duration::from_secs(1),
            here: pgsteer_core::settings::Here::default(),
        }
    }

    fn ask(port: u16) -> Ask {
        Ask {
            postgres: Endpoint::new("127.0.0.1", port).unwrap(),
            addresses: Vec::new(),
            new_host: None,
            patroni_url: Some(Arc::from(format!("http://127.0.0.1:{port}"))),
            poolers: [1].into(),
            has_tether: true,
            pace: Pace {
                tether: Duration::from_millis(5),
                patroni: Duration::from_millis(5),
                pooler: Duration::from_secs(1),
            },
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (bad, named) in [
            (cluster(&["http://127.0.0.1:1", "pg-1"], None), "pg-1"),
            (cluster(&["http://127.0.0.1:1"], Some(PathBuf::from("/nowhere/pw"))), "/nowhere/pw"),
        ] {
            let message = format!("{:#}", prepare(&bad).err().unwrap());
            assert!(message.contains(named), "{message}");
        }
    }

    #[tokio::test]
    async fn a_file_that_has_changed_is_noticed() {
        let file = std::env::temp_dir().join(format!("pgsteer-{}-rotated", std::process::id()));
        let prepared = |password: &str| {
            std::fs::write(&file, password).unwrap();
            prepare(&cluster(&["http://127.0.0.1:1"], Some(file.clone()))).unwrap()
        };
        let (_plan, plan) = watch::channel(Arc::new(Plan::default()));
        let sources =
            prepared("old").start(Clock::start(), mpsc::channel(1).0, plan, &Arc::default());
        assert!(sources.know_the_files_of(&prepared("old")));
        assert!(!sources.know_the_files_of(&prepared("new")));
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn the_members_in_the_plan_are_asked_and_no_others() {
        let nobody = fake::server(|_, _| async {}).await;
        let (reports, mut received) = mpsc::channel(1);
        let pg1 = MemberName::new("pg1").unwrap();
        let (plan, plan_rx) = watch::channel(Arc::new(Plan::default()));
        let url = format!("http://{nobody}");
        let prepared = prepare(&cluster(&[&url], None)).unwrap();
        let sources = prepared.start(Clock::start(), reports, plan_rx, &Arc::default());

        plan.send_replace(Arc::new(Plan {
            members: [(pg1.clone(), ask(nobody.port()))].into(),
            ..Plan::default()
        }));
        let mut kinds = [false; 4];
        while kinds.contains(&false) {
            let claim = match received.recv().await {
                Some(Report::Claim(claim)) => claim,
                // No Patroni returns a list meanwhile.
                Some(Report::Unlisted(_)) => continue,
                other => panic!("{other:?}"),
            };
            assert_eq!(claim.member, pg1);
            match claim.fact {
                Fact::Addresses(answer) => kinds[0] = answer.is_ok(),
                Fact::Here(_) | Fact::NewHost { .. } | Fact::NewSessions(_) => {}
                Fact::Patroni(answer) => kinds[1] = answer.is_err(),
                Fact::PatroniLate(_) => {}
                Fact::Tether(answer) => kinds[2] = answer.is_err(),
                Fact::Pooler { port, answer } => kinds[3] = port == 1 && answer.is_err(),
                Fact::Progress(_) => {}
            }
        }

        plan.send_replace(Arc::new(Plan::default()));
        let quiet = async {
            // Reports that were already under way may still arrive.
            while let Ok(report) =
                tokio::time::timeout(Duration::from_millis(200), received.recv()).await
            {
                assert!(report.is_some(), "the channel stays open");
            }
        };
        tokio::time::timeout(Duration::from_secs(5), quiet).await.unwrap();

        drop(sources);
        assert_eq!(received.recv().await, None, "all tasks have ended");
    }
}
