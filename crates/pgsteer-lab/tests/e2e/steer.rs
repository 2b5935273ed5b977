//! A pgsteer in front of the lab: starts it, reads its log, ends it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pgsteer_lab::{CHECK, Lab, Signal, Spawned};
use rustix::process::{Pid, kill_process};
use serde_json::Value;

use crate::{binary, stage};

/// The longest time until pgsteer sees a healthy cluster, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The configuration of a pgsteer. Each section is lines of TOML; an empty one keeps the defaults.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    /// Its ports are the standard ones plus this shift. Two pgsteers at once need different shifts.
    pub shift: u16,
    /// Patroni lists the members. Otherwise they are in the file, and roles come from SQL alone.
    pub patroni: bool,
    /// A login for the tether.
    pub check: bool,
    pub cluster: &'a str,
    pub write: &'a str,
    pub read: &'a str,
    pub proxy: &'a str,
    /// More sections, with their headings.
    pub more: &'a str,
    /// Its limit of open files, if not the usual one.
    pub files_max: Option<u32>,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Wanted {
            name: "pgsteer",
            shift: 0,
            patroni: true,
            check: true,
            cluster: "",
            write: "",
            read: "",
            proxy: "",
            more: "",
            files_max: None,
        }
    }
}

/// The addresses that a pgsteer listens on.
#[derive(Debug, Clone, Copy)]
pub struct Doors {
    pub write: SocketAddr,
    pub read: SocketAddr,
    pub http: SocketAddr,
}

impl Doors {
    /// On an address of the lab, so that every port is free.
    pub fn new(lab: &Lab, shift: u16) -> Doors {
        let at = |port: u16| SocketAddr::from((lab.host_ip(), port + shift));
        Doors { write: at(5000), read: at(5001), http: at(7000) }
    }
}

/// A running pgsteer. Dropping it kills it and keeps the end of its log.
#[derive(Debug)]
pub struct Steer {
    pub doors: Doors,
    name: String,
    program: Spawned,
    members: usize,
}

/// The state of every gate, by service and member, read from the log.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Gates(BTreeMap<(String, String), String>);

/// A gate as the status page shows it, with the code of its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownGate {
    state: String,
    reason: String,
}

impl ShownGate {
    pub fn is(&self, state: &str, reason: &str) -> bool {
        self.state == state && self.reason == reason
    }
}

impl Steer {
    /// The shortest start: one address of Patroni, no login, no file.
    pub fn newcomer(lab: &Lab) -> Result<Steer> {
        let doors = Doors::new(lab, 0);
        let patroni = lab.members().first().context("the lab has no member")?.patroni_url();
        let mut command = command()?;
        command.args(["--patroni", &patroni, "--control-socket", ""]);
        for (flag, door) in
            [("--write", doors.write), ("--read", doors.read), ("--http", doors.http)]
        {
            command.args([flag, &door.to_string()]);
        }
        Steer::spawn(lab, "pgsteer", command, doors)
    }

    /// Starts with a configuration file; returns when all members are known.
    pub fn start(lab: &Lab, wanted: &Wanted<'_>) -> Result<Steer> {
        let steer = Steer::start_blind(lab, wanted)?;
        steer.wait_until_ready()?;
        Ok(steer)
    }

    /// Same for a cluster that is not healthy: returns when its ports are open.
    pub fn start_blind(lab: &Lab, wanted: &Wanted<'_>) -> Result<Steer> {
        let doors = Doors::new(lab, wanted.shift);
        let mut command = match wanted.files_max {
            Some(files_max) => command_with_limit(files_max)?,
            None => command()?,
        };
        command.arg("--config").arg(write_file(lab, wanted)?);
        Steer::spawn(lab, wanted.name, command, doors)
    }

    fn spawn(lab: &Lab, name: &str, command: Command, doors: Doors) -> Result<Steer> {
        let old = lab.folder().join(format!("{name}.log"));
        // The log of an earlier test contains the states of other gates.
        let _ = std::fs::remove_file(old);
        let program = lab.spawn(name, command)?;
        let steer = Steer { doors, name: name.to_owned(), program, members: lab.members().len() };
        steer.wait_for("its ports to be open", READY_LIMIT, |steer| {
            steer.log().contains("service write listens on")
        })?;
        Ok(steer)
    }

    /// Waits until every member serves its services.
    pub fn wait_until_ready(&self) -> Result<()> {
        let replicas = self.members - 1;
        self.wait_for("all gates to be right", READY_LIMIT, |steer| {
            let gates = steer.gates();
            gates.open("write").len() == 1 && gates.open("read").len() == replicas
        })
    }

    /// Waits until the gate of `member` for `service` is in this state.
    pub fn wait_for_gate(
        &self,
        service: &str,
        member: &str,
        state: &str,
        limit: Duration,
    ) -> Result<()> {
        self.wait_for(&format!("the {service} gate of {member} to be {state}"), limit, |steer| {
            steer.gates().state(service, member) == state
        })
    }

    /// Waits until its log has a line that contains `line`.
    pub fn wait_for_log(&self, line: &str, limit: Duration) -> Result<()> {
        self.wait_for(&format!("the log to contain {line:?}"), limit, |steer| {
            steer.messages().iter().any(|message| message.contains(line))
        })
    }

    /// Repeats `check` until it succeeds.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        check: impl Fn(&Steer) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !check(self) {
            if Instant::now() > deadline {
                bail!("{} waited {limit:?} for {what}: {:?}", self.name, self.gates());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// The whole log, unparsed.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// The messages of its log, oldest first.
    pub fn messages(&self) -> Vec<String> {
        let message = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some(line.pointer("/fields/message")?.as_str()?.to_owned())
        };
        self.log().lines().filter_map(message).collect()
    }

    pub fn gates(&self) -> Gates {
        let mut gates = Gates::default();
        for message in self.messages() {
            gates.apply(&message);
        }
        gates
    }

    /// One of its pages.
    pub fn page(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.doors.http).context("no status pages")?;
        stream.set_read_timeout(Some(READY_LIMIT))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an incomplete answer")?;
        Ok(body.to_owned())
    }

    pub fn status(&self) -> Result<Value> {
        let page = self.page("/api/v1/status")?;
        serde_json::from_str(&page).with_context(|| format!("not JSON: {page}"))
    }

    /// A gate as the status page shows it.
    pub fn gate(&self, service: &str, member: &str) -> Result<ShownGate> {
        let status = self.status()?;
        let members = status["clusters"][0]["members"].as_array().cloned().unwrap_or_default();
        let shown = members.iter().find(|shown| shown["name"] == member);
        let gate = &shown.with_context(|| format!("{member} is not shown"))?["services"][service];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(ShownGate { state: word(&gate["gate"]), reason: word(&gate["reason"]["code"]) })
    }

    /// Writes `wanted` to the file and reloads; returns pgsteer's message on the reload.
    pub fn reload(&mut self, lab: &Lab, wanted: &Wanted<'_>) -> Result<String> {
        write_file(lab, wanted)?;
        self.reload_as_it_is()
    }

    /// Reloads with the current content of the file.
    pub fn reload_as_it_is(&mut self) -> Result<String> {
        let outcomes = |steer: &Steer| -> Vec<String> {
            let messages = steer.messages().into_iter();
            messages.filter(|line| line == "reloaded" || line.starts_with("not reloaded")).collect()
        };
        let before = outcomes(self).len();
        self.signal(Signal::HUP)?;
        self.wait_for("a message on the reload", READY_LIMIT, |steer| {
            outcomes(steer).len() > before
        })?;
        outcomes(self).pop().context("the message is gone")
    }

    /// Starts a new process that takes over, waits until this one has ended, and returns the process id
    /// of the new one and how long both took.
    pub fn upgrade(&self, pid: u32) -> Result<(u32, Duration)> {
        let before = self.upgrades().len();
        let began = Instant::now();
        send_signal(pid, Signal::USR2)?;
        self.wait_for("the new process to have taken over", READY_LIMIT, |steer| {
            steer.upgrades().len() > before
        })?;
        let new = self.upgrades().pop().context("the message is gone")?;
        Ok((new, began.elapsed()))
    }

    /// The process ids of all processes that have taken over.
    fn upgrades(&self) -> Vec<u32> {
        self.pids_in("upgraded: ")
    }

    /// The process ids in the messages with this beginning.
    fn pids_in(&self, beginning: &str) -> Vec<u32> {
        let pid = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = line.get("fields")?;
            let message = fields.get("message")?.as_str()?;
            let pid = fields.get("pid")?.as_u64()?;
            message.starts_with(beginning).then(|| u32::try_from(pid).ok())?
        };
        self.log().lines().filter_map(pid).collect()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.program.signal(signal)
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.program.wait(limit)
    }
}

impl Drop for Steer {
    fn drop(&mut self) {
        // A new process is no child of the test.
        for pid in self.pids_in("upgrade: started a new process") {
            let _ = send_signal(pid, Signal::KILL);
        }
        stage::keep_log(&self.name, &self.log());
    }
}

impl Gates {
    /// Reads a message such as `write gate of n1 is shut: no source has reported on it yet`.
    fn apply(&mut self, message: &str) {
        let words = || {
            let (service, rest) = message.split_once(" gate of ")?;
            let (member, rest) = rest.split_once(" is ")?;
            // A reservation or a reason may follow.
            Some((service, member, rest.split([':', ',']).next()?))
        };
        if let Some((service, member, state)) = words() {
            self.0.insert((service.to_owned(), member.to_owned()), state.to_owned());
        }
    }

    /// The state: `shut`, `draining` or `open`.
    pub fn state(&self, service: &str, member: &str) -> &str {
        let key = (service.to_owned(), member.to_owned());
        self.0.get(&key).map_or("shut", String::as_str)
    }

    /// The members whose gate is open.
    pub fn open(&self, service: &str) -> Vec<&str> {
        let open = self.0.iter().filter(|((of, _), state)| of == service && *state == "open");
        open.map(|((_, member), _)| member.as_str()).collect()
    }
}

fn command() -> Result<Command> {
    Ok(run_by(Command::new(binary::pgsteer()?)))
}

/// The same with a limit of open files.
fn command_with_limit(files_max: u32) -> Result<Command> {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={files_max}")).arg(binary::pgsteer()?);
    Ok(run_by(command))
}

fn run_by(mut command: Command) -> Command {
    command.args(["run", "--log-format", "json"]);
    // The clusters of two cases have the same URLs.
    command.env_remove("STATE_DIRECTORY").env_remove("XDG_STATE_HOME").env_remove("HOME");
    command
}

fn send_signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

/// The path of the configuration file of a pgsteer with this name.
pub fn file_of(lab: &Lab, name: &str) -> PathBuf {
    lab.folder().join(format!("{name}.toml"))
}

fn write_file(lab: &Lab, wanted: &Wanted<'_>) -> Result<PathBuf> {
    let file = file_of(lab, wanted.name);
    std::fs::write(&file, text(lab, wanted)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn text(lab: &Lab, wanted: &Wanted<'_>) -> Result<String> {
    let Doors { write, read, http } = Doors::new(lab, wanted.shift);
    let mut text = format!("[cluster]\n{}\n", wanted.cluster);
    if wanted.patroni {
        // One address is enough, so pgsteer must find the others.
        let url = lab.members().first().context("the lab has no member")?.patroni_url();
        writeln!(text, "[patroni]\nurls = ['{url}']")?;
    } else {
        for member in lab.members() {
            writeln!(text, "[members.{}]\npostgres = '{}'", member.name, member.postgres_addr())?;
        }
    }
    if wanted.check {
        let file = lab.check_password_file()?;
        writeln!(text, "[check]\nuser = '{CHECK}'\npassword_file = '{}'", file.display())?;
    }
    ensure!(wanted.check || wanted.patroni, "a pgsteer without Patroni needs a login");
    writeln!(text, "[http]\nlisten = '{http}'\n[proxy]\n{}", wanted.proxy)?;
    writeln!(text, "[services.write]\nlisten = '{write}'\nrole = 'primary'\n{}", wanted.write)?;
    writeln!(text, "[services.read]\nlisten = '{read}'\nrole = 'replica'\n{}", wanted.read)?;
    if !wanted.more.contains("[control]") {
        // The usual path is outside of the lab.
        writeln!(text, "[control]\nsocket = ''")?;
    }
    writeln!(text, "{}", wanted.more)?;
    Ok(text)
}
