//! Programs that run beside the cluster: pgsteer itself, HAProxy, writers. They end with the lab.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::Lab;
use crate::launcher::append;
use crate::processes::LAB_VARIABLE;
use crate::tools::which;

/// A program beside the cluster. Dropping this value kills it; the guardian would do so as well.
#[derive(Debug)]
pub struct Spawned {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Lab {
    /// Starts a program as the user of this process. Its output goes to `NAME.log` in the lab's
    /// folder.
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<Spawned> {
        let log = self.folder.join(format!("{name}.log"));
        let file = append(&log)?;
        let child = command
            .env(LAB_VARIABLE, &self.id)
            // Ctrl-C in the terminal must reach the lab only.
            .process_group(0)
            .stdin(Stdio::null())
            .stderr(file.try_clone().context("cannot share a log file")?)
            .stdout(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Spawned { name: name.to_owned(), child, log })
    }

    /// Starts a HAProxy with this configuration, as the user of the members. The error for an
    /// invalid configuration contains HAProxy's own message.
    pub fn haproxy(&self, name: &str, configuration: &str) -> Result<Spawned> {
        let haproxy =
            which("haproxy").context("there is no haproxy; run scripts/install-lab.sh")?;
        self.haproxy_of(&haproxy, name, configuration)
    }

    /// The words that start a program as the user of the members.
    pub fn as_members(&self, program: &Path) -> Vec<String> {
        let mut words = self.launcher.account.prefix();
        words.push(program.display().to_string());
        words
    }

    /// The same with the HAProxy at this path.
    pub fn haproxy_of(&self, haproxy: &Path, name: &str, configuration: &str) -> Result<Spawned> {
        let file = self.folder.join(format!("{name}.cfg"));
        std::fs::write(&file, configuration)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let check = Command::new(haproxy)
            .args(["-c", "-f"])
            .arg(&file)
            .output()
            .context("cannot run haproxy")?;
        if !check.status.success() {
            let words = String::from_utf8_lossy(&check.stderr);
            bail!("HAProxy does not accept {name}.cfg: {}", words.trim());
        }
        let words = self.as_members(haproxy);
        let mut command = Command::new(&words[0]);
        // In the foreground, because a daemon would have another process id.
        command.args(&words[1..]).args(["-db", "-f"]).arg(&file);
        // HAProxy changes to its folder again, which that user may not be allowed.
        command.current_dir("/");
        self.spawn(name, command)
    }
}

impl Spawned {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All output of the program so far.
    pub fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            bail!("{} has ended", self.name);
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} has no process id", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits until the program ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait();
            if let Some(status) = ended.with_context(|| format!("cannot wait for {}", self.name))? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} has not ended within {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends SIGTERM and waits for the end of the program.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // Both fail only if the program has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
