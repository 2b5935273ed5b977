//! A HAProxy with a file that `pgsteer render` wrote, in front of the lab.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session, Spawned, suited};

use crate::binary;
use crate::kept::Kept;
use crate::steer::Doors;

/// The value of `--detect`: the time within which a lost member must be noticed.
pub const DETECT: &str = "1s";
pub const DETECT_TIME: Duration = Duration::from_secs(1);
/// The longest time until HAProxy routes correctly, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// HAProxy's ports are those of a pgsteer plus this shift, and a further shift for each profile.
const SHIFT: u16 = 200;
const SHIFT_OF_PROFILE: u16 = 20;
const PROFILES: [&str; 7] =
    ["httpchk", "agent", "agent-bypass", "push", "sql", "redirect", "pgsteer"];

/// The HAProxy that reads the file.
#[derive(Debug, Clone)]
pub struct Version {
    /// The value of `--haproxy-version`; for a file of another version the name of that one.
    pub of_file: &'static str,
    /// The program; that of the system unless it is named.
    pub program: Option<PathBuf>,
}

impl Version {
    const SYSTEM: Version = Version { of_file: "2.6", program: None };
}

/// A HAProxy with a rendered file. Dropping it kills it.
pub struct Rendered {
    pub write: SocketAddr,
    pub read: SocketAddr,
    profile: String,
    socket: SocketAddr,
    process: Spawned,
    /// The program of the process; that of the system unless it is named.
    program: Option<PathBuf>,
    /// The processes before a reload. They serve their sessions to the end.
    old: Vec<Spawned>,
}

/// A server as HAProxy shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub status: String,
    /// The result of the last health check, such as `L7OK`, and its duration.
    pub check: String,
    pub check_ms: u64,
    /// At 0 it gets no new sessions.
    pub weight: u32,
    pub sessions: u64,
}

impl Shown {
    /// HAProxy sends new sessions to it.
    pub fn serves(&self) -> bool {
        self.status.starts_with("UP") && self.weight > 0
    }
}

impl Rendered {
    /// Returns when HAProxy routes to the right members.
    pub fn start(lab: &Lab, profile: &str, words: &[&str]) -> Result<Rendered> {
        let rendered = Rendered::launch(lab, profile, words)?;
        rendered.wait("the primary is found", |it| it.leads_right(lab))?;
        Ok(rendered)
    }

    /// Returns when HAProxy runs.
    pub fn launch(lab: &Lab, profile: &str, words: &[&str]) -> Result<Rendered> {
        Rendered::launch_of(lab, &Version::SYSTEM, profile, words)
    }

    /// The same with this HAProxy.
    pub fn launch_of(
        lab: &Lab,
        version: &Version,
        profile: &str,
        words: &[&str],
    ) -> Result<Rendered> {
        let shift = shift_of(profile)?;
        let words = [words, &["--haproxy-version", version.of_file]].concat();
        let text = text(lab, profile, &words, shift)?;
        let (inner, Doors { write, read, .. }) = (Doors::new(lab, 0), Doors::new(lab, shift));
        let socket = socket_of(lab, profile)?;
        // The pgsteer behind it has the usual ports.
        let text = suited(&text, socket, &format!("{}-{profile}", lab.id()))
            .replace(&format!("bind {}", inner.write), &format!("bind {write}"))
            .replace(&format!("bind {}", inner.read), &format!("bind {read}"))
            .replace("/run/haproxy/pgsteer-state", &state_file(lab).display().to_string());
        // An earlier test may have written one.
        let _ = std::fs::remove_file(state_file(lab));
        let name = format!("rendered-{profile}");
        let process = match &version.program {
            Some(program) => lab.haproxy_of(program, &name, &text)?,
            None => lab.haproxy(&name, &text)?,
        };
        let (profile, program) = (profile.to_owned(), version.program.clone());
        Ok(Rendered { write, read, profile, socket, process, program, old: Vec::new() })
    }

    /// Starts a new process with the same file, as a reload does: it takes over the ports, and the old
    /// process goes on with its sessions.
    pub fn reload(&mut self, lab: &Lab) -> Result<()> {
        let file = lab.folder().join(format!("rendered-{}.cfg", self.profile));
        let program = self.program.clone().unwrap_or_else(|| PathBuf::from("/usr/sbin/haproxy"));
        let mut words = lab.as_members(&program);
        words.extend(["-db", "-f"].map(str::to_owned));
        words.push(file.display().to_string());
        words.extend(["-sf".to_owned(), self.process.pid().to_string()]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let new = lab.spawn(&format!("rendered-{}-{}", self.profile, self.old.len()), command)?;
        self.await_pid(new.pid())?;
        self.old.push(std::mem::replace(&mut self.process, new));
        Ok(())
    }

    /// Waits until this process alone answers.
    fn await_pid(&self, pid: u32) -> Result<()> {
        let is_new = || self.ask("show info").is_ok_and(|it| it.contains(&format!("Pid: {pid}\n")));
        let deadline = Instant::now() + SOON;
        while !(is_new() && is_new() && is_new()) {
            ensure!(Instant::now() < deadline, "the new HAProxy does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Writes a command to HAProxy's socket, and returns the answer.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut socket = TcpStream::connect(self.socket)?;
        socket.set_read_timeout(Some(SOON))?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Writers reach the primary, and readers another member.
    pub fn leads_right(&self, lab: &Lab) -> Result<()> {
        let primary = lab.primary()?.ip.to_string();
        ensure!(Kept::open(self.write)?.member_ip() == primary, "a writer is led elsewhere");
        ensure!(Kept::open(self.read)?.member_ip() != primary, "a reader is led to the primary");
        Ok(())
    }

    /// Fails if a writer is served.
    pub fn refuses_writers(&self) -> Result<()> {
        let served = Session::connect(self.write, SUPERUSER, "postgres", Duration::from_secs(1));
        ensure!(served.is_err(), "profile {}: a writer is let in", self.profile);
        Ok(())
    }

    /// Waits until `is_so` succeeds; its last error becomes part of the returned error.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Rendered) -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            match is_so(self) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let shown = self.shown().unwrap_or_default();
                    let (profile, log) = (&self.profile, self.process.log());
                    return Err(error.context(format!("{profile}: {what}? {shown:#?}\n{log}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Every server, by backend and name.
    pub fn shown(&self) -> Result<BTreeMap<String, Shown>> {
        let text = self.ask("show stat")?;
        let mut lines = text.lines().map(|line| line.trim_start_matches("# ").split(',').collect());
        let names: Vec<&str> = lines.next().context("no statistics")?;
        let column = |name| names.iter().position(|it| *it == name).context("a column is missing");
        let (proxy, server, status) = (column("pxname")?, column("svname")?, column("status")?);
        let (check, check_ms) = (column("check_status")?, column("check_duration")?);
        let (weight, sessions) = (column("weight")?, column("scur")?);
        Ok(lines
            .filter(|row: &Vec<&str>| row.len() > check_ms && row[server].starts_with('n'))
            .map(|row| {
                let shown = Shown {
                    status: row[status].to_owned(),
                    check: row[check].to_owned(),
                    check_ms: row[check_ms].parse().unwrap_or_default(),
                    weight: row[weight].parse().unwrap_or_default(),
                    sessions: row[sessions].parse().unwrap_or_default(),
                };
                (format!("{} {}", row[proxy], row[server]), shown)
            })
            .collect())
    }
}

/// Old sessions end. New sessions are served by a primary, and within the limit there is one.
pub fn follows_a_switchover(lab: &Lab, haproxy: &Rendered) -> Result<()> {
    let mut old = Kept::open(haproxy.write)?;
    lab.switchover(None)?;
    old.ensure_ended()?;
    haproxy.wait("the new primary is found", |it| {
        if let Ok(mut session) = Session::connect(it.write, SUPERUSER, "postgres", SOON) {
            // The role in the login is not used, because PgBouncer sends it from its cache.
            let rows = session.query("SELECT pg_is_in_recovery()", SOON)?;
            let answer = rows.into_iter().flatten().flatten().next();
            ensure!(answer.as_deref() == Some("f"), "a writer is led to a standby");
        }
        it.leads_right(lab)
    })
}

/// The lines of a configuration file that make a pgsteer the agent.
pub fn agent_section(lab: &Lab) -> String {
    format!("[agent]\nvocabulary = 'admin'\nlisten = '{}'\n", agent(lab))
}

/// The lines of a configuration file that steer the HAProxy with profile push.
pub fn push_section(lab: &Lab) -> String {
    let socket = socket_of(lab, "push").map(|socket| socket.to_string()).unwrap_or_default();
    let state = state_file(lab);
    format!("[haproxy]\nsockets = ['{socket}']\nstate_file = '{}'\n", state.display())
}

/// The state of the servers for a HAProxy that is reloaded.
fn state_file(lab: &Lab) -> PathBuf {
    lab.folder().join("haproxy-state")
}

/// The shift of the ports of a profile.
fn shift_of(profile: &str) -> Result<u16> {
    let at = PROFILES.iter().position(|it| *it == profile).context("no such profile")?;
    Ok(SHIFT + SHIFT_OF_PROFILE * u16::try_from(at)?)
}

/// The address of the Runtime API.
fn socket_of(lab: &Lab, profile: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::from((lab.host_ip(), 9000 + shift_of(profile)?)))
}

/// The address of that agent.
pub fn agent(lab: &Lab) -> SocketAddr {
    SocketAddr::from((lab.host_ip(), 5555))
}

/// The line that makes a service use the members' PgBouncers.
pub fn pooler_port(lab: &Lab) -> String {
    format!("pooler_port = {}", lab.members().first().map_or(0, |member| member.pgbouncer_port))
}

fn text(lab: &Lab, profile: &str, words: &[&str], shift: u16) -> Result<String> {
    let doors = Doors::new(lab, 0);
    let file = lab.folder().join(format!("rendered-{profile}.toml"));
    let pooler = if profile == "agent-bypass" { pooler_port(lab) } else { String::new() };
    let text = format!(
        "[services.write]\nlisten = '{}'\n{pooler}\n[services.read]\nlisten = '{}'\n{pooler}\n\
         [http]\nlisten = '{}'\n[proxy]\nsessions_max = 1000\n{}",
        doors.write,
        doors.read,
        doors.http,
        agent_section(lab)
    );
    std::fs::write(&file, text)?;
    let patroni = lab.members().first().context("the lab has no member")?.patroni_url();
    let stats = SocketAddr::new(doors.write.ip(), doors.http.port() + shift);
    let output = Command::new(binary::pgsteer()?)
        .args(["render", "haproxy", "--profile", profile])
        .args(["--detect", DETECT].iter().filter(|_| !words.contains(&"--detect")))
        .args(["--patroni", &patroni].iter().filter(|_| !words.contains(&"--member")))
        .args(["--stats-listen", &stats.to_string()])
        .arg("--config")
        .arg(&file)
        .args(words)
        .env("PGSTEER_STATS_PASSWORD", "of the test")
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
