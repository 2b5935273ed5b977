//! Whatever answers agent-checks: one process per member, each at its member's own address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::lab::Lab;
use crate::member::{CHECK, Member};
use crate::options::{Network, PatroniVersion};
use crate::spawned::Spawned;
use crate::tools::which;

const HAPPAC: &str = include_str!("stand_ins/happac.py");
const BLOG_DAEMON: &str = include_str!("stand_ins/blog_daemon.py");

/// The first port; on loopback all members have the same, each on its own address.
const PORT: u16 = 15_555;
/// Between two crews.
const PORTS_PER_CREW: u16 = 20;
/// From the port of the checks to that of the pages.
const PAGES: u16 = 10;

/// Who answers.
#[derive(Debug, Clone)]
pub enum Agents {
    /// `pgsteer agent`, with happac's flags and a file for what has no flag.
    Pgsteer {
        binary: PathBuf,
        /// Sections of the file; those of the agent and the pages are written for each member.
        sections: String,
        /// Lines of `[agent]`.
        agent: String,
        /// The members must be reached through their PgBouncers.
        pooled: bool,
    },
    /// The stand-in for happac, before each member's PgBouncer.
    Happac,
    /// The stand-in for the blog's daemon.
    BlogDaemon,
}

/// Where one of them answers.
#[derive(Debug, Clone, Copy)]
pub struct Post {
    pub agent: SocketAddr,
    /// Its health pages, where it has any.
    pub pages: SocketAddr,
}

/// One process per member. Dropping it kills them.
#[derive(Debug)]
pub struct Crew {
    name: String,
    number: u16,
    agents: Agents,
    by_member: BTreeMap<String, Spawned>,
}

/// One more of them, beside HAProxy. Dropping it kills it.
#[derive(Debug)]
pub struct Beside {
    pub post: Post,
    process: Spawned,
}

impl Agents {
    /// A pgsteer with a login for the tether, and with so little patience with a server that hangs.
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

    /// The same, behind PgBouncers.
    pub fn pooled(mut self) -> Self {
        if let Self::Pgsteer { pooled, .. } = &mut self {
            *pooled = true;
        }
        self
    }

    /// Starts one on HAProxy's own machine, which is no member's.
    pub fn beside_haproxy(&self, lab: &Lab) -> Result<Beside> {
        let at = |port| SocketAddr::from((lab.host_ip(), port));
        let post = Post { agent: at(PORT - PORTS_PER_CREW), pages: at(PORT - PAGES) };
        let member = lab.members().first().context("the lab has no member")?;
        let command = self.command(lab, "beside-haproxy", member, post)?;
        Ok(Beside { post, process: lab.spawn("beside-haproxy", command)? })
    }

    fn command(&self, lab: &Lab, name: &str, member: &Member, post: Post) -> Result<Command> {
        match self {
            Self::Pgsteer { binary, sections, agent, pooled } => {
                let Post { agent: listen, pages } = post;
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
                // What the caller has set for a log of his own must not slow this one down, and
                // happac's variables would be taken for flags.
                command.env_clear();
                Ok(command)
            }
            Self::Happac => {
                let pg_isready = lab.postgres_bin().join("pg_isready");
                let mut command = script(lab, "happac.py", HAPPAC)?;
                command.args(words(post.agent)).args(words(member.patroni_addr()));
                command.arg("primary").arg(pg_isready).args(words(member.pgbouncer_addr()));
                Ok(command)
            }
            Self::BlogDaemon => {
                let role = match lab.options().patroni {
                    PatroniVersion::Debian => "master",
                    PatroniVersion::Pip => "primary",
                };
                let mut command = script(lab, "blog_daemon.py", BLOG_DAEMON)?;
                command.args(words(post.agent)).arg(member.patroni_url()).arg(role);
                Ok(command)
            }
        }
    }
}

impl Beside {
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Crew {
    /// Starts one per member. Crews of one lab have different numbers.
    pub fn start(lab: &Lab, name: &str, number: u16, agents: Agents) -> Result<Self> {
        let mut crew = Self { name: name.to_owned(), number, agents, by_member: BTreeMap::new() };
        crew.mend(lab)?;
        Ok(crew)
    }

    /// Starts those that do not run.
    pub fn mend(&mut self, lab: &Lab) -> Result<()> {
        for member in lab.members() {
            if self.by_member.get_mut(&member.name).is_some_and(Spawned::is_running) {
                continue;
            }
            let name = format!("{}-{}", self.name, member.name);
            let command = self.agents.command(lab, &name, member, self.post(lab, member))?;
            self.by_member.insert(member.name.clone(), lab.spawn(&name, command)?);
        }
        Ok(())
    }

    /// Where the one of this member answers.
    pub fn post(&self, lab: &Lab, member: &Member) -> Post {
        let first = PORT + self.number * PORTS_PER_CREW;
        // In namespaces the members' addresses are not the host's, so there the ports differ.
        let (ip, port) = match lab.options().network {
            Network::Loopback => (member.ip, first),
            Network::Namespaces => {
                let at = lab.members().iter().position(|each| each.name == member.name);
                let number = at.and_then(|at| u16::try_from(at).ok()).unwrap_or_default();
                (lab.host_ip(), first + number)
            }
        };
        let at = |port| SocketAddr::new(IpAddr::V4(ip), port);
        Post { agent: at(port), pages: at(port + PAGES) }
    }

    /// SIGKILL for the one of this member.
    pub fn kill(&mut self, member: &str) -> Result<()> {
        let process = self.of(member)?;
        process.signal(Signal::KILL)?;
        process.wait(std::time::Duration::from_secs(5)).map(drop)
    }

    pub fn pid(&mut self, member: &str) -> Result<u32> {
        Ok(self.of(member)?.pid())
    }

    /// The logs of all, for the case that something went wrong.
    pub fn logs(&self) -> impl Iterator<Item = (&str, String)> {
        self.by_member.iter().map(|(member, process)| (member.as_str(), process.log()))
    }

    /// The first line that the one of this member has written.
    pub fn first_words(&self, member: &str) -> String {
        let log = self.by_member.get(member).map(Spawned::log).unwrap_or_default();
        log.lines().next().unwrap_or_default().to_owned()
    }

    fn of(&mut self, member: &str) -> Result<&mut Spawned> {
        let name = &self.name;
        self.by_member.get_mut(member).with_context(|| format!("{name} has none at {member}"))
    }
}

/// The Python that the lab's newer Patroni has, because it has `requests` as well; else that of the
/// system.
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
