//! A pgsteer with an address that follows a service, in the network namespace of each member.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use pgsteer_lab::{CHECK, Lab, Signal, Spawned, member_namespace};
use rustix::process::{Pid, kill_process};
use serde_json::Value;

use crate::{binary, stage};

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The interface of every member.
const INTERFACE: &str = "eth0";

/// The last number of the address.
const HOST_NUMBER: u8 = 200;

/// One member's pgsteer.
#[derive(Debug)]
pub struct VipNode {
    member: String,
    namespace: String,
    program: Option<Spawned>,
}

/// The pgsteers of all members. Dropping them removes the address everywhere.
#[derive(Debug)]
pub struct VipNodes {
    vip: Ipv4Addr,
    service: &'static str,
    /// The command of pgsteer that runs: `run` or `agent`.
    command: &'static str,
    nodes: Vec<VipNode>,
    monitors: Vec<(String, Spawned)>,
}

/// A time during which a member had the address, in seconds since 1970.
#[derive(Debug, Clone)]
pub struct Held {
    pub member: String,
    pub from: f64,
    /// None while it still has it.
    pub until: Option<f64>,
}

impl VipNodes {
    /// Starts a pgsteer in the namespace of each member; the address follows `service`.
    pub fn start(lab: &Lab, service: &'static str) -> Result<VipNodes> {
        VipNodes::start_command(lab, service, "run")
    }

    /// The same with another command of pgsteer.
    pub fn start_command(
        lab: &Lab,
        service: &'static str,
        command: &'static str,
    ) -> Result<VipNodes> {
        let [a, b, c, _] = lab.host_ip().octets();
        let vip = Ipv4Addr::new(a, b, c, HOST_NUMBER);
        let (nodes, monitors) = (Vec::new(), Vec::new());
        let mut all = VipNodes { vip, service, command, nodes, monitors };
        for member in lab.members() {
            let namespace = member_namespace(lab.id(), &member.name);
            let mut monitor = inside(&namespace, "ip");
            monitor.args(["-ts", "-o", "monitor", "address"]);
            let log = format!("vip-monitor-{}", member.name);
            let _ = std::fs::remove_file(lab.folder().join(format!("{log}.log")));
            all.monitors.push((member.name.clone(), lab.spawn(&log, monitor)?));
            let member = member.name.clone();
            all.nodes.push(VipNode { member, namespace, program: None });
        }
        for member in lab.members() {
            all.start_at(lab, &member.name)?;
        }
        Ok(all)
    }

    /// Starts the pgsteer of one member.
    pub fn start_at(&mut self, lab: &Lab, member: &str) -> Result<()> {
        let name = format!("vip-{member}");
        let file = lab.folder().join(format!("{name}.toml"));
        std::fs::write(&file, self.text(lab)?)?;
        let word = self.command;
        let node = self.node_mut(member)?;
        let pgsteer = binary::pgsteer()?;
        let mut command = inside(&node.namespace, &pgsteer.display().to_string());
        command.args([word, "--config"]).arg(&file);
        command.env_remove("STATE_DIRECTORY").env_remove("XDG_STATE_HOME").env_remove("HOME");
        node.program = Some(lab.spawn(&name, command)?);
        Ok(())
    }

    fn text(&self, lab: &Lab) -> Result<String> {
        let urls: Vec<String> = lab.patroni_urls().iter().map(|url| format!("'{url}'")).collect();
        let password = lab.check_password_file()?;
        Ok(format!(
            "[patroni]\nurls = [{}]\n[check]\nuser = '{CHECK}'\npassword_file = '{}'\n\
             [vip.db]\naddress = '{}/24'\ninterface = '{INTERFACE}'\nservice = '{}'\n",
            urls.join(", "),
            password.display(),
            self.vip,
            self.service
        ))
    }

    /// The address with the port of pgsteer's service `write`: the lab's PostgreSQL listens on the own
    /// address of its member only.
    pub fn door(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.vip), 5000)
    }

    /// The address.
    pub fn vip(&self) -> Ipv4Addr {
        self.vip
    }

    /// The address as pgsteer adds it: with a prefix of 32 bits.
    pub fn vip_on_interface(&self) -> String {
        format!("{}/32", self.vip)
    }

    fn node(&self, member: &str) -> Result<&VipNode> {
        let found = self.nodes.iter().find(|node| node.member == member);
        found.with_context(|| format!("{member} has no pgsteer"))
    }

    fn node_mut(&mut self, member: &str) -> Result<&mut VipNode> {
        let found = self.nodes.iter_mut().find(|node| node.member == member);
        found.with_context(|| format!("{member} has no pgsteer"))
    }

    fn program(&mut self, member: &str) -> Result<&mut Spawned> {
        let program = self.node_mut(member)?.program.as_mut();
        program.with_context(|| format!("the pgsteer of {member} does not run"))
    }

    /// Sends a signal to the pgsteer of one member.
    pub fn signal(&mut self, member: &str, signal: Signal) -> Result<()> {
        self.program(member)?.signal(signal)
    }

    /// Waits for the end of the pgsteer of one member.
    pub fn wait(&mut self, member: &str) -> Result<()> {
        self.program(member)?.wait(Duration::from_secs(10))?;
        Ok(())
    }

    /// Replaces the pgsteer of one member by a new process.
    pub fn upgrade(&mut self, member: &str) -> Result<()> {
        self.signal(member, Signal::USR2)?;
        self.wait(member)?;
        let log = self.log(member)?;
        ensure!(log.contains("upgraded: the new process has taken over"), "{log}");
        Ok(())
    }

    /// The process ids of the new processes of upgrades.
    fn successors(&self, member: &str) -> Vec<Pid> {
        let log = self.log(member).unwrap_or_default();
        let started = log.lines().filter(|line| line.contains("upgrade: started a new process"));
        let pids = started.filter_map(|line| line.split("pid=").nth(1)?.trim().parse().ok());
        pids.filter_map(Pid::from_raw).collect()
    }

    /// The log of the pgsteer of one member.
    pub fn log(&self, member: &str) -> Result<String> {
        let program = self.node(member)?.program.as_ref();
        Ok(program.map(Spawned::log).unwrap_or_default())
    }

    /// Runs `ip` at one member.
    pub fn ip(&self, member: &str, words: &[&str]) -> Result<String> {
        let mut command = inside(&self.node(member)?.namespace, "ip");
        let output = command.args(words).output().context("cannot run ip")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {words:?} at {member}: {}", errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `pgsteer` with these words at one member; returns its exit code and its output.
    pub fn pgsteer(&self, member: &str, words: &[&str]) -> Result<(i32, String)> {
        let pgsteer = binary::pgsteer()?.display().to_string();
        let mut command = inside(&self.node(member)?.namespace, &pgsteer);
        let output = command.args(words).output().context("cannot run pgsteer")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code().unwrap_or(-1), text))
    }

    /// The address as the status of one member's pgsteer shows it.
    pub fn status(&self, member: &str) -> Result<Value> {
        let (_, text) = self.pgsteer(member, &["status", "--json"])?;
        let status: Value = serde_json::from_str(&text).context("no status")?;
        Ok(status["vips"][0].clone())
    }

    /// The members that have the address.
    pub fn holders(&self) -> Result<Vec<String>> {
        let vip = format!(" {}/", self.vip);
        let mut holders = Vec::new();
        for node in &self.nodes {
            let addresses = self.ip(&node.member, &["-o", "address", "show", "dev", INTERFACE])?;
            if addresses.contains(&vip) {
                holders.push(node.member.clone());
            }
        }
        Ok(holders)
    }

    /// Waits until exactly one member has the address, and returns it.
    pub fn wait_for_one_holder(&self, limit: Duration) -> Result<String> {
        self.wait_for_another_holder("", limit)
    }

    /// Waits until exactly one member has the address and it is not `old`, and returns it.
    pub fn wait_for_another_holder(&self, old: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.holders()?.as_slice() {
                [holder] if holder != old => return Ok(holder.clone()),
                holders if Instant::now() > deadline => {
                    bail!("{holders:?} have the address: {:?}", self.history())
                }
                _ => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Waits until these members, and no others, have the address.
    pub fn wait_for_holders(&self, wanted: &[&str], limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let holders = self.holders()?;
            if holders == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                let vip = self.vip;
                bail!("{holders:?} have {vip}, and not {wanted:?} after {limit:?}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// When each member had the address, by the kernel's own messages.
    pub fn history(&self) -> Vec<Held> {
        let vip = format!(" {}/", self.vip);
        let mut all = Vec::new();
        for (member, monitor) in &self.monitors {
            let mut held: Option<Held> = None;
            for line in monitor.log().lines().filter(|line| line.contains(&vip)) {
                let Some(at) = seconds(line) else { continue };
                if line.contains("Deleted") {
                    let ended = held.take().map(|held| Held { until: Some(at), ..held });
                    all.extend(ended);
                } else {
                    let new = Held { member: member.clone(), from: at, until: None };
                    held.get_or_insert(new);
                }
            }
            all.extend(held);
        }
        all.sort_by(|a, b| a.from.total_cmp(&b.from));
        all
    }

    /// The longest time during which two members had the address.
    pub fn longest_overlap(&self) -> Duration {
        let history = self.history();
        let mut longest = 0.0_f64;
        for (number, one) in history.iter().enumerate() {
            for other in history.iter().skip(number + 1).filter(|it| it.member != one.member) {
                let until = |it: &Held| it.until.unwrap_or(f64::INFINITY);
                let ends = until(one).min(until(other)).min(now());
                longest = longest.max(ends - other.from.max(one.from));
            }
        }
        Duration::from_secs_f64(longest.max(0.0))
    }
}

impl Drop for VipNodes {
    fn drop(&mut self) {
        let address = self.vip_on_interface();
        for number in 0..self.nodes.len() {
            let member = self.nodes[number].member.clone();
            if let Ok(log) = self.log(&member) {
                stage::keep_log(&format!("vip-{member}"), &log);
            }
            for pid in self.successors(&member) {
                // It has ended already, or it is no child of the test.
                let _ = kill_process(pid, Signal::KILL);
            }
            // A stopped program is killed too.
            self.nodes[number].program = None;
            // It fails if the address is gone.
            let _ = self.ip(&member, &["address", "del", &address, "dev", INTERFACE]);
        }
    }
}

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The time of a line such as `[2026-11-28T03:47:00.123456] 2: eth0 ...`, as seconds since 1970, on a
/// machine whose clock shows UTC.
fn seconds(line: &str) -> Option<f64> {
    let stamp = line.strip_prefix('[')?.split_once(']')?.0;
    let at = humantime::parse_rfc3339_weak(stamp).ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}
