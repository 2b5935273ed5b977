//! Starts a lab, up to a healthy cluster.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::address::Subnet;
use crate::files::{PatroniFile, pgbouncer_hba, pgbouncer_ini, pgbouncer_userlist};
use crate::guardian::Guardian;
use crate::lab::Lab;
use crate::launcher::{Children, Launcher};
use crate::member::{APP, CHECK, Member};
use crate::options::{LabOptions, MEMBERS_MAX, Network};
use crate::patience::{log_tail, wait_for};
use crate::processes::{Part, Processes};
use crate::tools::Tools;
use crate::{namespaces, rest};

/// The accounts of the lab. All default privileges of PUBLIC are revoked, so that the check user
/// can do nothing but log in.
const SETUP: [&str; 7] = [
    "CREATE ROLE app LOGIN PASSWORD 'app'",
    "CREATE DATABASE app OWNER app",
    "CREATE ROLE pgcheck LOGIN PASSWORD 'pgcheck'",
    "REVOKE ALL ON DATABASE postgres, template1, app FROM PUBLIC",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "GRANT CONNECT ON DATABASE postgres TO pgcheck",
    "GRANT CONNECT ON DATABASE postgres TO app",
];

impl Lab {
    /// Starts a cluster and returns when one member is primary and all others stream from it.
    pub fn start(options: LabOptions) -> Result<Self> {
        let began = Instant::now();
        let mut lab = Self::prepare(&options)?;
        for member in lab.members() {
            lab.launcher.start(member, Part::Etcd)?;
            lab.launcher.start(member, Part::PgBouncer)?;
        }
        lab.wait_for_etcd(Duration::from_secs(20))?;
        for member in lab.members() {
            lab.launcher.start(member, Part::Patroni)?;
        }
        lab.wait_for_bootstrap(Duration::from_secs(60))?;
        lab.make_accounts()?;
        lab.wait_healthy(Duration::from_secs(60))?;
        lab.started_in = began.elapsed();
        Ok(lab)
    }

    /// Does everything before the first process of the cluster. If a step after the start of the
    /// guardian fails, the guardian removes what was made.
    fn prepare(options: &LabOptions) -> Result<Self> {
        if !(1..=MEMBERS_MAX).contains(&options.members) {
            bail!("a lab has 1 to {MEMBERS_MAX} members, not {}", options.members);
        }
        let tools = Tools::find(options.patroni)?;
        let account = Account::choose()?;
        if options.network == Network::Namespaces && !account.is_root() {
            bail!("network namespaces need root; take the loopback network instead");
        }
        account.check_sight()?;
        let seed = RandomState::new().build_hasher().finish();
        let id = format!("{:08x}", seed >> 32);
        let folder = make_folder(&id, &account)?;
        let guardian = Guardian::start(&id, &folder, options.logs_target().as_deref())?;
        let subnet = Subnet::pick(options.network, options.members, seed.to_le_bytes()[0])?;
        let members: Vec<Member> = (1..=options.members)
            .map(|number| Member::new(number, subnet.member(number), subnet.ports, &folder))
            .collect();
        if options.network == Network::Namespaces {
            namespaces::build(&id, &subnet, &members).context("cannot build the network")?;
        }
        let lab = Self {
            _guardian: guardian,
            processes: Processes { id: id.clone(), folder: folder.clone() },
            launcher: Launcher {
                id: id.clone(),
                network: options.network,
                account,
                tools,
                members,
                children: Children::default(),
            },
            // A connection to 127.0.7.1 comes from 127.0.0.1, so a loopback lab trusts that whole
            // net.
            clients: match options.network {
                Network::Loopback => "127.0.0.0/8".to_owned(),
                Network::Namespaces => subnet.cidr(),
            },
            id,
            folder,
            options: options.clone(),
            started_in: Duration::ZERO,
            subnet,
        };
        for member in lab.members() {
            lab.write_files(member)?;
        }
        Ok(lab)
    }

    fn write_files(&self, member: &Member) -> Result<()> {
        let folder = &member.folder;
        std::fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        self.launcher.account.own(folder)?;
        self.write_pgbouncer_ini(member, member.postgres_addr())?;
        write(&folder.join("pgbouncer_hba.conf"), &pgbouncer_hba())?;
        write(&folder.join("userlist.txt"), &pgbouncer_userlist())?;
        self.write_patroni_yml(member, false)
    }

    pub(crate) fn write_patroni_yml(&self, member: &Member, noloadbalance: bool) -> Result<()> {
        let file = PatroniFile {
            member,
            postgres_bin: &self.launcher.tools.postgres_bin,
            etcd_api: self.launcher.tools.etcd_api,
            clients: &self.clients,
            connections_max: self.options.connections_max,
            noloadbalance,
        };
        write(&member.folder.join("patroni.yml"), &file.text())
    }

    pub(crate) fn write_pgbouncer_ini(&self, member: &Member, leads_to: SocketAddr) -> Result<()> {
        write(&member.pgbouncer_ini(), &pgbouncer_ini(member, leads_to))
    }

    /// A Patroni that does not find etcd at its start sleeps for five seconds, so etcd must be up first.
    fn wait_for_etcd(&self, limit: Duration) -> Result<()> {
        let sick = || {
            self.members().iter().find(|member| {
                let url = format!("http://{}/health", member.etcd_addr());
                let answer = rest::get(&url, Duration::from_secs(1));
                !answer.is_ok_and(|answer| answer.status == 200)
            })
        };
        wait_for("etcd to elect a leader", limit, || {
            sick().map_or(Ok(()), |member| {
                Err(format!(
                    "{} is not healthy\n{}",
                    member.name,
                    log_tail(&member.folder.join("etcd.log"))
                ))
            })
        })
    }

    fn wait_for_bootstrap(&self, limit: Duration) -> Result<()> {
        wait_for("the cluster to bootstrap", limit, || {
            if self.primary().is_ok() {
                return Ok(());
            }
            let logs: Vec<String> = self
                .members()
                .iter()
                .map(|member| format!("{}:\n{}", member.name, log_tail(&member.patroni_log())))
                .collect();
            Err(logs.join("\n"))
        })
    }

    fn make_accounts(&self) -> Result<()> {
        let primary = self.primary()?;
        for statement in SETUP {
            self.sql(&primary.name, statement)
                .with_context(|| format!("cannot make the accounts {APP} and {CHECK}"))?;
        }
        Ok(())
    }
}

/// Makes the lab's folder. As root it is in /tmp, because user postgres may lack access to root's
/// TMPDIR. The path has no symbolic links, because processes are identified by their working folder
/// as the kernel reports it.
fn make_folder(id: &str, account: &Account) -> Result<PathBuf> {
    let parent = if account.is_root() { PathBuf::from("/tmp") } else { std::env::temp_dir() };
    let parent = parent
        .canonicalize()
        .with_context(|| format!("no temporary folder {}", parent.display()))?;
    let folder = parent.join(format!("pgsteer-lab-{id}"));
    std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
