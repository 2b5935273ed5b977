//! Finds the processes of a lab in /proc and sends them signals.
//! Finds the processes of a lab in /proc and sends signals to them.
//!
//! Patroni starts PostgreSQL as a daemon, so neither process groups nor the list of children
//! contain it. Instead, every process of a lab carries the lab's id in its environment. The
//! children of a postmaster overwrite their environment with their title; their program and working
//! folder identify them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// Carries the lab's id. The guardian searches for it too.
pub const LAB_VARIABLE: &str = "PGSTEER_LAB";
/// Carries the member and part, for instance `n1/patroni`.
pub const PART_VARIABLE: &str = "PGSTEER_LAB_PART";

/// The programs that make up a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// First, because a Patroni that outlives its PostgreSQL even for a moment would react to its
    /// end.
    Patroni,
    Postgres,
    PgBouncer,
    Etcd,
}

impl Part {
    /// The parts that fail together when a member crashes or freezes. etcd stays, as if it ran
    /// elsewhere: with three members on one machine an act should not depend on the current etcd
    /// leader.
    pub const ALL_BUT_ETCD: [Self; 3] = [Self::Patroni, Self::Postgres, Self::PgBouncer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Patroni => "patroni",
            Self::Postgres => "postgres",
            Self::PgBouncer => "pgbouncer",
            Self::Etcd => "etcd",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Patroni, Self::Postgres, Self::PgBouncer, Self::Etcd]
            .into_iter()
            .find(|part| part.name() == name)
    }
}

/// One living process of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabProcess {
    pub pid: Pid,
    pub member: String,
    pub part: Part,
    /// Whether it is stopped by SIGSTOP.
    pub stopped: bool,
}

/// Lists the processes of one lab.
#[derive(Debug)]
pub struct Processes {
    pub id: String,
    pub folder: PathBuf,
}

impl Processes {
    /// All processes of a member that belong to one of `parts`, in the order of the parts.
    pub fn of(&self, member: &str, parts: &[Part]) -> Vec<LabProcess> {
        let mut found: Vec<LabProcess> = numbered_folders("/proc")
            .filter_map(|pid| self.identify(pid))
            .filter(|process| process.member == member && parts.contains(&process.part))
            .collect();
        found.sort_by_key(|process| process.part);
        found
    }

    /// Repeats the kill until no process is found, because a process may fork in between.
    pub fn kill(&self, member: &str, parts: &[Part]) -> Result<()> {
        self.repeat(member, parts, Signal::KILL, |_| true)
    }

    pub fn stop(&self, member: &str, parts: &[Part]) -> Result<()> {
        self.repeat(member, parts, Signal::STOP, |process| !process.stopped)
    }

    pub fn go_on(&self, member: &str, parts: &[Part]) -> Result<()> {
        self.repeat(member, parts, Signal::CONT, |process| process.stopped)
    }

    fn repeat(
        &self,
        member: &str,
        parts: &[Part],
        signal: Signal,
        wanting: impl Fn(&LabProcess) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut left = self.of(member, parts);
            left.retain(&wanting);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{signal:?} does not reach all processes of {member}: {left:?}");
            }
            for process in &left {
                match kill_process(process.pid, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => bail!("{signal:?} to {process:?}: {error}"),
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A process may end during the read, so every read error means that it is not a process of the
    /// lab.
    fn identify(&self, pid: i32) -> Option<LabProcess> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let environ = std::fs::read(folder.join("environ")).ok()?;
        let program = || std::fs::read_link(folder.join("exe")).ok();
        let variables = variables(&environ);
        let (member, part) = if let Some(id) = variables.get(LAB_VARIABLE.as_bytes()) {
            if *id != self.id.as_bytes() {
                return None;
            }
            let text = std::str::from_utf8(variables.get(PART_VARIABLE.as_bytes())?).ok()?;
            let (member, part) = text.split_once('/')?;
            let part =
                if is_postgres(&program()?) { Part::Postgres } else { Part::from_name(part)? };
            (member.to_owned(), part)
        } else {
            let working = std::fs::read_link(folder.join("cwd")).ok()?;
            let member = member_of_folder(&self.folder, &working)?;
            if !is_postgres(&program()?) {
                return None;
            }
            (member, Part::Postgres)
        };
        let state = state_letter(&std::fs::read_to_string(folder.join("stat")).ok()?)?;
        Some(LabProcess { pid: Pid::from_raw(pid)?, member, part, stopped: state == 'T' })
    }
}

fn numbered_folders(parent: &str) -> impl Iterator<Item = i32> {
    std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn variables(environ: &[u8]) -> HashMap<&[u8], &[u8]> {
    environ
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let middle = entry.iter().position(|byte| *byte == b'=')?;
            Some((&entry[..middle], &entry[middle + 1..]))
        })
        .collect()
}

/// The kernel adds " (deleted)" to the name of a program that was upgraded while the process runs.
fn is_postgres(program: &Path) -> bool {
    let name = program.file_name().map_or(&b""[..], OsStr::as_bytes);
    name == b"postgres" || name.starts_with(b"postgres ")
}

fn member_of_folder(lab: &Path, working: &Path) -> Option<String> {
    let inside = working.strip_prefix(lab).ok()?;
    let first = inside.components().next()?;
    Some(first.as_os_str().to_str()?.to_owned())
}

/// The state in /proc/PID/stat follows the program's name, which may itself contain parentheses.
fn state_letter(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_found_behind_a_strange_name() {
        assert_eq!(state_letter("12 (a) R (b)) T 1 12 12 0"), Some('T'));
    }

    #[test]
    fn variables_are_split_at_the_first_equals_sign() {
        let found = variables(b"A=1\0PGSTEER_LAB=ab=c\0\0broken\0");
        assert_eq!(found.get(&b"PGSTEER_LAB"[..]), Some(&&b"ab=c"[..]));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_backend_is_known_by_its_working_folder() {
        let member = |path: &str| member_of_folder(Path::new("/tmp/lab"), Path::new(path));
        assert_eq!(member("/tmp/lab/n2/data"), Some("n2".into()));
        assert_eq!(member("/tmp/lab/n2/data (deleted)"), Some("n2".into()));
        assert_eq!(member("/tmp/lab2/n2/data"), None);
    }

    #[test]
    fn only_the_server_is_postgres() {
        assert!(is_postgres(Path::new("/usr/lib/postgresql/15/bin/postgres")));
        assert!(is_postgres(Path::new("/x/bin/postgres (deleted)")));
        assert!(!is_postgres(Path::new("/x/bin/postgres_exporter")));
    }
}
