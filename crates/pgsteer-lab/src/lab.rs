//! The lab itself, and the questions that a test can ask.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::address::Subnet;
use crate::guardian::Guardian;
use crate::launcher::Launcher;
use crate::member::{CHECK, Member, SUPERUSER};
use crate::options::LabOptions;
use crate::processes::{Part, Processes};
use crate::tools::EtcdApi;
use crate::wire::{Rows, Session};

/// Long enough for the answer of a busy machine, short enough for a frozen member.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_millis(1500);
const QUERY_LIMIT: Duration = Duration::from_secs(20);

/// A running cluster. Dropping it ends and removes everything.
///
/// All acts take `&self`, so threads can share a lab.
#[derive(Debug)]
pub struct Lab {
    /// First, because fields are dropped in order: the guardian must finish before the children are
    /// reaped.
    pub(crate) _guardian: Guardian,
    pub(crate) launcher: Launcher,
    pub(crate) processes: Processes,
    pub(crate) id: String,
    pub(crate) folder: PathBuf,
    pub(crate) options: LabOptions,
    /// The addresses that clients connect from, in the notation of pg_hba.conf.
    pub(crate) clients: String,
    pub(crate) started_in: Duration,
    pub(crate) subnet: Subnet,
}

impl Lab {
    /// Eight hexadecimal digits. All processes of the lab carry them as `PGSTEER_LAB`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder of all files of the lab. It is removed with the lab.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    pub fn members(&self) -> &[Member] {
        &self.launcher.members
    }

    pub fn member(&self, name: &str) -> Result<&Member> {
        self.members()
            .iter()
            .find(|member| member.name == name)
            .with_context(|| format!("the lab has no member {name:?}"))
    }

    /// How long [`Lab::start`] took.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// The folder of `psql`, `pgbench` and the other programs of PostgreSQL.
    pub fn postgres_bin(&self) -> &Path {
        &self.launcher.tools.postgres_bin
    }

    /// An address of the host that members can reach.
    pub fn host_ip(&self) -> std::net::Ipv4Addr {
        self.subnet.host()
    }

    /// All members' Patroni, for instance `http://127.0.7.1:18008`.
    pub fn patroni_urls(&self) -> Vec<String> {
        self.members().iter().map(Member::patroni_url).collect()
    }

    /// The etcd URLs of all members, if Patroni uses the v3 API. etcd stores the keys of the v2 API
    /// separately, so the v3 API does not return them.
    pub fn etcd_urls(&self) -> Vec<String> {
        match self.launcher.tools.etcd_api {
            EtcdApi::V3 => self.members().iter().map(Member::etcd_url).collect(),
            EtcdApi::V2 => Vec::new(),
        }
    }

    /// The members that take writes, checked directly by SQL. A member that does not answer is not
    /// in the list.
    pub fn writable(&self) -> Vec<&Member> {
        std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .members()
                .iter()
                .map(|member| (member, scope.spawn(|| is_writable(member))))
                .collect();
            asked
                .into_iter()
                .filter_map(|(member, answer)| answer.join().is_ok_and(|yes| yes).then_some(member))
                .collect()
        })
    }

    /// The one member that takes writes. Returns an error if there is none, or more than one.
    pub fn primary(&self) -> Result<&Member> {
        match self.writable().as_slice() {
            [one] => Ok(one),
            [] => bail!("no member takes writes"),
            many => {
                let names: Vec<&str> = many.iter().map(|member| member.name.as_str()).collect();
                bail!("more than one member takes writes: {}", names.join(", "))
            }
        }
    }

    /// All members but the primary.
    pub fn replicas(&self) -> Result<Vec<&Member>> {
        let primary = self.primary()?;
        Ok(self.members().iter().filter(|member| member.name != primary.name).collect())
    }

    /// The file with the password of the check login, in the form that pgsteer requires.
    pub fn check_password_file(&self) -> Result<PathBuf> {
        let file = self.folder().join("pgcheck.password");
        // The file is kept, because a pgsteer that starts at this moment must not read an empty
        // file.
        if !file.is_file() {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).mode(0o600);
            let mut new = options.open(&file).context("cannot make the password file")?;
            new.write_all(CHECK.as_bytes()).context("cannot write the password file")?;
        }
        Ok(file)
    }

    /// The process ids of one member that belong to `parts`, in the order of the parts.
    pub fn pids(&self, name: &str, parts: &[Part]) -> Vec<u32> {
        let processes = self.processes.of(name, parts);
        processes.iter().map(|process| process.pid.as_raw_nonzero().get().unsigned_abs()).collect()
    }

    /// Runs SQL on one member as the superuser.
    pub fn sql(&self, name: &str, sql: &str) -> Result<Rows> {
        let member = self.member(name)?;
        session(member)
            .and_then(|mut session| session.query(sql, QUERY_LIMIT))
            .with_context(|| format!("{sql:?} on {name}"))
    }
}

/// A direct session of the superuser.
pub(crate) fn session(member: &Member) -> std::io::Result<Session> {
    Session::connect(member.postgres_addr(), SUPERUSER, "postgres", ANSWER_LIMIT)
}

fn is_writable(member: &Member) -> bool {
    session(member).is_ok_and(|session| session.is_writable())
}
