//! The programs that answer agent-checks: one process per member, each at its member's own address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::lab::Lab;
use crate::member::{CHECK, Member};
use crate::options::{Network, PatroniVersion};
use crate::patience::wait_for;
use crate::spawned::Spawned;
use crate::tools::which;

const HAPPAC: &str = include_str!("stand_ins/happac.py");
const BLOG_DAEMON: &str = include_str!("stand_ins/blog_daemon.py");

/// The first port. On loopback all members use the same port, each on its own address.
const PORT: u16 = 15_555;
/// The distance between the ports of two sets of agent processes.
const PORTS_PER_SET: u16 = 20;
/// The distance from the port of the agent-check to the port of the HTTP pages.
const PAGES: u16 = 10;

/// The program that answers the agent-checks.
#[derive(Debug, Clone)]
pub enum Agents {
    /// `pgsteer agent`, with happac's flags, and a file for the settings that have no flag.
    Pgsteer {
        binary: PathBuf,
        /// Sections of the file. `[agent]` and `[http]` are written for each member.
        sections: String,
        /// Lines of `[agent]`.
        agent: String,
        /// The members must be reached through their PgBouncers.
        pooled: bool,
    },
    /// The stand-in for happac, in front of each member's PgBouncer.
    Happac,
    /// The stand-in for the blog's daemon.
    BlogDaemon,
}

/// The addresses of one agent process.
#[derive(Debug, Clone, Copy)]
pub struct AgentAddresses {
    /// The address of the agent-check.
    pub agent: SocketAddr,
    /// The address of its health pages, if it has any.
    pub pages: SocketAddr,
}

/// One process per member. Dropping this value kills them.
#[derive(Debug)]
pub struct AgentProcesses {
    name: String,
    number: u16,
    agents: Agents,
    by_member: BTreeMap<String, Spawned>,
}

/// One more agent process, on the machine of HAProxy. Dropping this value kills it.
#[derive(Debug)]
pub struct AgentBesideHaproxy {
    pub addresses: AgentAddresses,
    process: Spawned,
}

impl Agents {
    /// A pgsteer with a login for the tether. `timeout` is in seconds: after that time without an
    /// answer a server counts as hung.
    pub fn pgsteer(lab: &Lab, binary: &Path, agent: &str, timeout: f64) -> Result<Self> {
        let file = lab.check_password_file()?;
        let sections = format!(
            "[check]\nuser = '{CHECK}'\npassword_file = '{}'\ntimeout_seconds = {timeout}\n\
             [patroni]\ntimeout_seconds = {timeout}\n",
            file.display()
        );
        let (binary, agent) = (binary.to_owned(), agent.to_owned());
        Ok(Self::Pgsteer { binary, sections, agent, pooled: false })
    }

    /// The same program, behind PgBouncers.
    pub fn pooled(mut self) -> Self {
        if let Self::Pgsteer { pooled, .. } = &mut self {
            *pooled = true;
        }
        self
    }

    /// The same program with more sections of its file.
    pub fn with_sections(mut self, more: &str) -> Self {
        if let Self::Pgsteer { sections, .. } = &mut self {
            sections.push_str(more);
        }
        self
    }

    /// The addresses of the process on HAProxy's own machine. A lab has one at most.
    pub fn addresses_beside_haproxy(lab: &Lab) -> AgentAddresses {
        let at = |port| SocketAddr::from((lab.host_ip(), port));
        AgentAddresses { agent: at(PORT - PORTS_PER_SET), pages: at(PORT - PAGES) }
    }

    /// Starts one process on HAProxy's own machine, which is not the machine of a member.
    pub fn beside_haproxy(&self, lab: &Lab) -> Result<AgentBesideHaproxy> {
        let addresses = Agents::addresses_beside_haproxy(lab);
        let member = lab.members().first().context("the lab has no member")?;
        let command = self.command(lab, "beside-haproxy", member, addresses)?;
        Ok(AgentBesideHaproxy { addresses, process: lab.spawn("beside-haproxy", command)? })
    }

    fn command(
        &self,
        lab: &Lab,
        name: &str,
        member: &Member,
        addresses: AgentAddresses,
    ) -> Result<Command> {
        match self {
            Self::Pgsteer { binary, sections, agent, pooled } => {
                let AgentAddresses { agent: listen, pages } = addresses;
                let text = format!(
                    "{sections}[agent]\nlisten = '{listen}'\n{agent}\n[http]\nlisten = '{pages}'\n"
                );
                let file = lab.folder().join(format!("{name}.toml"));
                std::fs::write(&file, text).context("cannot write a configuration of pgsteer")?;
                let mut command = Command::new(binary);
                command.args(["agent", "--log-format", "json", "--config"]).arg(file);
                command.args([
                    "-h",
                    &member.ip.to_string(),
                    "-o",
                    &member.patroni_port.to_string(),
                ]);
                if *pooled {
                    command.args(["-r", &member.pgbouncer_port.to_string()]);
                }
                // The caller's log settings must not slow this process down, and pgsteer would read
                // happac's variables as flags.
                command.env_clear();
                Ok(command)
            }
            Self::Happac => {
                let pg_isready = lab.postgres_bin().join("pg_isready");
                let mut command = script(lab, "happac.py", HAPPAC)?;
                command.args(words(addresses.agent)).args(words(member.patroni_addr()));
                command.arg("primary").arg(pg_isready).args(words(member.pgbouncer_addr()));
                Ok(command)
            }
            Self::BlogDaemon => {
                let role = match lab.options().patroni {
                    PatroniVersion::Debian => "master",
                    PatroniVersion::Pip => "primary",
                };
                let mut command = script(lab, "blog_daemon.py", BLOG_DAEMON)?;
                command.args(words(addresses.agent)).arg(member.patroni_url()).arg(role);
                Ok(command)
            }
        }
    }
}

impl AgentBesideHaproxy {
    /// Waits until it has written this in its log.
    ///
    /// # Errors
    /// It has not within `limit`; the error has its log.
    pub fn wait_for_log(&self, text: &str, limit: Duration) -> Result<()> {
        wait_for(text, limit, || match self.log() {
            log if log.contains(text) => Ok(()),
            log => Err(log),
        })
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl AgentProcesses {
    /// Starts one process per member. Each set of one lab needs its own number.
    pub fn start(lab: &Lab, name: &str, number: u16, agents: Agents) -> Result<Self> {
        let mut agents_of_members =
            Self { name: name.to_owned(), number, agents, by_member: BTreeMap::new() };
        agents_of_members.restart_stopped(lab)?;
        Ok(agents_of_members)
    }

    /// Starts the processes that do not run.
    pub fn restart_stopped(&mut self, lab: &Lab) -> Result<()> {
        for member in lab.members() {
            if self.by_member.get_mut(&member.name).is_some_and(Spawned::is_running) {
                continue;
            }
            let name = format!("{}-{}", self.name, member.name);
            let command = self.agents.command(lab, &name, member, self.addresses(lab, member))?;
            self.by_member.insert(member.name.clone(), lab.spawn(&name, command)?);
        }
        Ok(())
    }

    /// The addresses of the process of this member.
    pub fn addresses(&self, lab: &Lab, member: &Member) -> AgentAddresses {
        let first = PORT + self.number * PORTS_PER_SET;
        // In namespaces the members' addresses are not addresses of the host, so the ports differ
        // instead.
        let (ip, port) = match lab.options().network {
            Network::Loopback => (member.ip, first),
            Network::Namespaces => {
                let at = lab.members().iter().position(|each| each.name == member.name);
                let number = at.and_then(|at| u16::try_from(at).ok()).unwrap_or_default();
                (lab.host_ip(), first + number)
            }
        };
        let at = |port| SocketAddr::new(IpAddr::V4(ip), port);
        AgentAddresses { agent: at(port), pages: at(port + PAGES) }
    }

    /// Kills the process of this member with SIGKILL.
    pub fn kill(&mut self, member: &str) -> Result<()> {
        let process = self.of(member)?;
        process.signal(Signal::KILL)?;
        process.wait(Duration::from_secs(5)).map(drop)
    }

    pub fn pid(&mut self, member: &str) -> Result<u32> {
        Ok(self.of(member)?.pid())
    }

    /// The logs of all processes, for error reports.
    pub fn logs(&self) -> impl Iterator<Item = (&str, String)> {
        self.by_member.iter().map(|(member, process)| (member.as_str(), process.log()))
    }

    /// The first line that the process of this member wrote.
    pub fn first_words(&self, member: &str) -> String {
        let log = self.by_member.get(member).map(Spawned::log).unwrap_or_default();
        log.lines().next().unwrap_or_default().to_owned()
    }

    fn of(&mut self, member: &str) -> Result<&mut Spawned> {
        let name = &self.name;
        self.by_member.get_mut(member).with_context(|| format!("{name} has none at {member}"))
    }
}

/// The Python of the lab's newer Patroni, because it has `requests`; otherwise the system's Python.
fn script(lab: &Lab, name: &str, text: &str) -> Result<Command> {
    let file = lab.folder().join(name);
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let of_patroni = lab.launcher.tools.venv_python.clone();
    let python = of_patroni.or_else(|| which("python3")).context("there is no python3")?;
    let mut command = Command::new(python);
    command.arg("-u").arg(file);
    Ok(command)
}

fn words(addr: SocketAddr) -> [String; 2] {
    [addr.ip().to_string(), addr.port().to_string()]
}
