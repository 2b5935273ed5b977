//! An upgrade under load: pgsteer hands over to a new process, HAProxy reloads.

mod fake;
mod load;
mod report;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};

use self::load::{Load, Seen};
use crate::bench_setup::{free_address, pgsteer_binary, raise_file_limit};
use crate::usage::resident_bytes;

/// The time between two upgrades, and before the first one.
const PAUSE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(30);
/// How long an old process of HAProxy is watched after the last reload.
const WATCHED: Duration = Duration::from_secs(5);

/// The plan of one run.
#[derive(Debug)]
pub struct Plan {
    pub sessions: usize,
    pub busy: usize,
    pub upgrades: usize,
}

/// One upgrade, as its process shows it.
#[derive(Clone, Copy, Debug)]
pub struct Upgraded {
    /// When the signal was sent.
    pub began: Instant,
    /// From the signal to the end of the old process; none if it did not end.
    pub old_gone: Option<Duration>,
    /// Memory and open files of the new process.
    pub resident_bytes: u64,
    pub files: usize,
}

/// What one program did.
#[derive(Debug)]
pub struct Measured {
    pub seen: Seen,
    pub upgrades: Vec<Upgraded>,
    /// Sessions that were open.
    pub sessions: usize,
}

/// A program that is under load, and ended with this value.
struct Running {
    child: Child,
    /// The process that serves now.
    pid: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in [self.pid, self.child.id()] {
            let _ = signal(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Runs the benchmark and returns the text of its section.
pub fn run(plan: &Plan) -> Result<String> {
    raise_file_limit();
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // A session takes two files in the proxy, which keeps some for itself.
    let affordable = usize::try_from(files / 2).unwrap_or(usize::MAX).saturating_sub(400);
    let sessions = plan.sessions.min(affordable);
    let binary = pgsteer_binary()?;
    let folder = std::env::temp_dir().join(format!("pgsteer-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("no folder for the benchmark")?;
    let (postgres, patroni) = fake::start()?;
    let pgsteer = upgrade_pgsteer(plan, sessions, &binary, &folder, patroni);
    let haproxy = pgsteer
        .and_then(|pgsteer| Ok((pgsteer, reload_haproxy(plan, sessions, &folder, postgres)?)));
    let _ = std::fs::remove_dir_all(&folder);
    let (pgsteer, haproxy) = haproxy?;
    Ok(report::section(plan, &pgsteer, &haproxy))
}

fn upgrade_pgsteer(
    plan: &Plan,
    sessions: usize,
    binary: &Path,
    folder: &Path,
    patroni: SocketAddr,
) -> Result<Measured> {
    let (write, read) = (free_address()?, free_address()?);
    let text = format!(
        "[patroni]\nurls = [\"http://{patroni}\"]\n\n[proxy]\nsessions_max = {0}\n\
         sessions_per_address_max = {0}\n\n[services.write]\nlisten = \"{write}\"\n\n\
         [services.read]\nlisten = \"{read}\"\nrole = \"replica\"\n",
        sessions + 100
    );
    let config = folder.join("pgsteer.toml");
    std::fs::write(&config, text)?;
    let log = folder.join("pgsteer.log");
    let mut command = Command::new(binary);
    command.args(["run", "--log-format", "json", "--state-directory"]).arg(folder);
    command.arg("--config").arg(&config).env_remove("RUST_LOG").stderr(File::create(&log)?);
    let child = command.stdout(File::create(folder.join("pgsteer.out"))?).spawn()?;
    let mut running = Running { pid: child.id(), child };
    wait_for("pgsteer to open its gate", || {
        Ok(read_log(&log)?.contains("write gate of n1 is open"))
    })?;
    let load = Load::start(write, sessions, plan.busy)?;
    let mut upgrades = Vec::new();
    for number in 0..plan.upgrades {
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        signal(running.pid, Signal::USR2)?;
        wait_for("the upgrade", || Ok(successors(&read_log(&log)?).len() > number))?;
        let old_gone = Some(began.elapsed());
        running.pid = successors(&read_log(&log)?).pop().context("no process id")?;
        upgrades.push(upgraded(began, old_gone, running.pid)?);
        println!("pgsteer: upgrade {} took {:.0?}", number + 1, began.elapsed());
    }
    std::thread::sleep(PAUSE);
    Ok(Measured { seen: load.finish()?, upgrades, sessions })
}

fn reload_haproxy(
    plan: &Plan,
    sessions: usize,
    folder: &Path,
    postgres: SocketAddr,
) -> Result<Measured> {
    let listen = free_address()?;
    let text = format!(
        "global\n    maxconn {}\n\ndefaults\n    mode tcp\n    timeout client 30m\n    \
         timeout connect 4s\n    timeout server 30m\n\nlisten primary\n    bind {listen}\n    \
         server n1 {postgres} check\n",
        sessions + 100
    );
    let config = folder.join("haproxy.cfg");
    std::fs::write(&config, text)?;
    let mut command = Command::new("haproxy");
    command.arg("-W").arg("-f").arg(&config).stderr(File::create(folder.join("haproxy.log"))?);
    let child = command.stdout(File::create(folder.join("haproxy.out"))?).spawn();
    let child = child.context("there is no haproxy; run scripts/install-lab.sh")?;
    let running = Running { pid: child.id(), child };
    wait_for("HAProxy to listen", || Ok(std::net::TcpStream::connect(listen).is_ok()))?;
    let load = Load::start(listen, sessions, plan.busy)?;
    let mut upgrades = Vec::new();
    for number in 0..plan.upgrades.min(HAPROXY_RELOADS_MAX) {
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        let before = children(running.pid)?;
        signal(running.pid, Signal::USR2)?;
        wait_for("HAProxy's new process", || {
            Ok(children(running.pid)?.iter().any(|pid| !before.contains(pid)))
        })?;
        println!("HAProxy: reload {} took {:.0?}", number + 1, began.elapsed());
        let newest = children(running.pid)?.into_iter().find(|pid| !before.contains(pid));
        upgrades.push(upgraded(began, None, newest.unwrap_or(running.pid))?);
    }
    std::thread::sleep(WATCHED);
    Ok(Measured { seen: load.finish()?, upgrades, sessions })
}

/// Each reload leaves one more old process with all of its sessions.
const HAPROXY_RELOADS_MAX: usize = 3;

fn upgraded(began: Instant, old_gone: Option<Duration>, pid: u32) -> Result<Upgraded> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(Upgraded { began, old_gone, resident_bytes: resident_bytes(pid)?, files })
}

/// The ids of the processes that have taken over, oldest first.
fn successors(log: &str) -> Vec<u32> {
    let of_line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields")?;
        let message = fields.get("message")?.as_str()?;
        message.starts_with("upgraded: ").then_some(())?;
        u32::try_from(fields.get("pid")?.as_u64()?).ok()
    };
    log.lines().filter_map(of_line).collect()
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let file = PathBuf::from(format!("/proc/{pid}/task/{pid}/children"));
    let text = std::fs::read_to_string(&file).context("no list of processes")?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

fn read_log(log: &Path) -> Result<String> {
    std::fs::read_to_string(log).context("no log of pgsteer")
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

fn wait_for(what: &str, check: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !check()? {
        if Instant::now() > deadline {
            bail!("waited {LIMIT:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
