//! Starts the programs of members, each as the right user, in the right network, with the lab's
//! mark.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::account::Account;
use crate::files;
use crate::member::Member;
use crate::namespaces;
use crate::options::Network;
use crate::processes::{LAB_VARIABLE, PART_VARIABLE, Part};
use crate::tools::{Tools, system_path};

#[derive(Debug)]
pub struct Launcher {
    pub id: String,
    pub network: Network,
    pub account: Account,
    pub tools: Tools,
    /// All members, because the etcd arguments of each member name all of them.
    pub members: Vec<Member>,
    pub children: Children,
}

/// The direct children of this process. PostgreSQL is not one of them: Patroni starts it as a
/// daemon.
#[derive(Debug, Default)]
pub struct Children {
    by_part: Mutex<HashMap<(String, Part), Child>>,
}

impl Launcher {
    /// Starts one part of a member, unless it runs already.
    pub fn start(&self, member: &Member, part: Part) -> Result<()> {
        if self.children.is_running(member, part) {
            return Ok(());
        }
        let mut command = self.command(member, part)?;
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {} of {}", part.name(), member.name))?;
        self.children.add(member, part, child);
        Ok(())
    }

    /// The arguments to put before a command so that it runs as the account, in the member's
    /// network.
    pub fn within(&self, member: &Member) -> Vec<String> {
        let mut words = Vec::new();
        if self.network == Network::Namespaces {
            let namespace = namespaces::member_namespace(&self.id, &member.name);
            words.push("nsenter".to_owned());
            words.push(format!("--net=/run/netns/{namespace}"));
            words.push("--".to_owned());
        }
        words.extend(self.account.prefix());
        words
    }

    fn command(&self, member: &Member, part: Part) -> Result<Command> {
        let folder = &member.folder;
        let (program, arguments) = match part {
            Part::Etcd => (
                &self.tools.etcd,
                files::etcd_arguments(member, &self.members, self.tools.etcd_api),
            ),
            Part::Patroni => (&self.tools.patroni, vec![shown(&folder.join("patroni.yml"))]),
            Part::PgBouncer => (&self.tools.pgbouncer, vec![shown(&member.pgbouncer_ini())]),
            Part::Postgres => bail!("PostgreSQL is started by Patroni"),
        };
        let mut words = self.within(member);
        words.push(shown(program));
        words.extend(arguments);
        let log = append(&folder.join(format!("{}.log", part.name())))?;
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            // Variables of the caller would change the configuration of Patroni, etcd and libpq.
            .env_clear()
            .env("PATH", system_path())
            .env("LANG", "C.UTF-8")
            .env("HOME", folder)
            .env(LAB_VARIABLE, &self.id)
            .env(PART_VARIABLE, format!("{}/{}", member.name, part.name()))
            .current_dir(folder)
            // Ctrl-C in the terminal must reach the lab only.
            .process_group(0)
            .stdin(Stdio::null())
            .stderr(log.try_clone().context("cannot share a log file")?)
            .stdout(log);
        Ok(command)
    }
}

impl Children {
    pub fn is_running(&self, member: &Member, part: Part) -> bool {
        let mut children = self.lock();
        let key = (member.name.clone(), part);
        match children.get_mut(&key).map(Child::try_wait) {
            Some(Ok(None)) => true,
            Some(_) => {
                children.remove(&key);
                false
            }
            None => false,
        }
    }

    /// Sends a signal to a part that this process started.
    pub fn signal(&self, member: &Member, part: Part, signal: Signal) -> Result<()> {
        let what = || format!("{} of {}", part.name(), member.name);
        if !self.is_running(member, part) {
            bail!("{} does not run", what());
        }
        let children = self.lock();
        let pid = children
            .get(&(member.name.clone(), part))
            .and_then(|child| Pid::from_raw(child.id().try_into().ok()?))
            .with_context(|| format!("{} has no process id", what()))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", what()))
    }

    /// Reads the exit status of all killed children, so that they do not stay as zombies.
    pub fn reap(&self) {
        self.lock().retain(|_, child| matches!(child.try_wait(), Ok(None)));
    }

    /// Waits for the end of parts that were killed. A dying process has already lost its
    /// environment, which identifies it, and is not yet a zombie. A start of the same part at that
    /// moment would take it for running.
    pub fn await_end(&self, member: &Member, parts: &[Part]) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Some(part) = parts.iter().find(|part| self.is_running(member, **part)) {
            if Instant::now() > deadline {
                bail!("{} of {} does not end", part.name(), member.name);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.reap();
        Ok(())
    }

    fn add(&self, member: &Member, part: Part, child: Child) {
        self.lock().insert((member.name.clone(), part), child);
    }

    /// A thread that panicked while it held the lock leaves a valid map.
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Part), Child>> {
        self.by_part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Children {
    /// The guardian has killed the children by now.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        self.reap();
        while !self.lock().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            self.reap();
        }
    }
}

/// Opens a log for appending, so that a restarted program continues in the same file.
pub fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
