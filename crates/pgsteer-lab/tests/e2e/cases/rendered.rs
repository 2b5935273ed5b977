//! HAProxy with the files that `pgsteer render` writes: it leads to the right member, also right
//! after a switchover, and to nobody where two take writes.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, Member, SUPERUSER, Session, Spawned};

use crate::binary;
use crate::kept::Kept;
use crate::steer::{Doors, Steer, Wanted};

/// HAProxy's ports are those of pgsteer and this.
const SHIFT: u16 = 200;
const DETECT: &str = "1s";
const DETECT_TIME: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);
const AGENT: &str = "[agent]\nvocabulary = 'admin'\nlisten = ";

/// A HAProxy with a rendered file. Dropping it kills it.
struct Rendered {
    write: SocketAddr,
    read: SocketAddr,
    socket: SocketAddr,
    process: Spawned,
}

impl Rendered {
    /// Returns when it leads to the right members.
    fn start(lab: &Lab, profile: &str, words: &[&str]) -> Result<Rendered> {
        let rendered = Rendered::launch(lab, profile, words)?;
        rendered.wait("the primary is found", |it| it.leads_right(lab))?;
        Ok(rendered)
    }

    fn launch(lab: &Lab, profile: &str, words: &[&str]) -> Result<Rendered> {
        let text = render(lab, profile, words)?;
        let inner = Doors::new(lab, 0);
        let Doors { write, read, .. } = Doors::new(lab, SHIFT);
        let socket = SocketAddr::new(write.ip(), 9000 + SHIFT);
        // The lab's HAProxy runs without root, beside the pgsteer that has the usual ports.
        let is_of_root = |line: &str| {
            ["user ", "group ", "chroot ", "log /"]
                .iter()
                .any(|word| line.trim_start().starts_with(word))
        };
        let mut here = String::new();
        for line in text.lines().filter(|line| !is_of_root(line)) {
            let line = match line.trim_start().starts_with("stats socket") {
                true => format!("    stats socket ipv4@{socket} level admin"),
                false => line
                    .replace(&format!("bind {}", inner.write), &format!("bind {write}"))
                    .replace(&format!("bind {}", inner.read), &format!("bind {read}"))
                    .replace("abns@pgsteer-guard", &format!("abns@pgsteer-{}", lab.id())),
            };
            here.push_str(&line);
            here.push('\n');
        }
        let process = lab.haproxy("rendered", &here)?;
        Ok(Rendered { write, read, socket, process })
    }

    /// Writers come to the primary, and readers to somebody else.
    fn leads_right(&self, lab: &Lab) -> Result<()> {
        let primary = lab.primary()?.ip.to_string();
        ensure!(Kept::open(self.write)?.member_ip() == primary, "a writer is led elsewhere");
        ensure!(Kept::open(self.read)?.member_ip() != primary, "a reader is led to the primary");
        Ok(())
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Rendered) -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            match is_so(self) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let shown = self.shown().unwrap_or_default();
                    return Err(
                        error.context(format!("{what}? {shown:#?}\n{}", self.process.log()))
                    );
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// The status of every server, by backend and server.
    fn shown(&self) -> Result<BTreeMap<String, String>> {
        let mut socket = TcpStream::connect(self.socket)?;
        socket.write_all(b"show stat\n")?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        let mut lines = text.lines().map(|line| line.trim_start_matches("# ").split(',').collect());
        let names: Vec<&str> = lines.next().context("no statistics")?;
        let column = |name| names.iter().position(|it| *it == name).context("a column is missing");
        let (proxy, server, status) = (column("pxname")?, column("svname")?, column("status")?);
        Ok(lines
            .filter(|row: &Vec<&str>| row.len() > status && row[server].starts_with('n'))
            .map(|row| (format!("{} {}", row[proxy], row[server]), row[status].to_owned()))
            .collect())
    }
}

fn render(lab: &Lab, profile: &str, words: &[&str]) -> Result<String> {
    let doors = Doors::new(lab, 0);
    let file = lab.folder().join("rendered.toml");
    let text = format!(
        "[services.write]\nlisten = '{}'\n[services.read]\nlisten = '{}'\n[http]\nlisten = '{}'\n[proxy]\nsessions_max = 1000\n{AGENT}'{}'\n",
        doors.write,
        doors.read,
        doors.http,
        agent(lab)
    );
    std::fs::write(&file, text)?;
    let patroni = lab.members().first().context("the lab has no member")?.patroni_url();
    let output = Command::new(binary::pgsteer()?)
        .args(["render", "haproxy", "--profile", profile, "--detect", DETECT])
        .args(["--patroni", &patroni, "--stats-listen", &format!("{}:7200", doors.write.ip())])
        .arg("--config")
        .arg(&file)
        .args(words)
        .env("PGSTEER_STATS_PASSWORD", "of the test")
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn agent(lab: &Lab) -> SocketAddr {
    SocketAddr::from((lab.host_ip(), 5555))
}

/// Sessions of before end; those that come are writable each, and soon there are some again.
fn follows_a_switchover(lab: &Lab, haproxy: &Rendered) -> Result<()> {
    let mut old = Kept::open(haproxy.write)?;
    lab.switchover(None)?;
    old.ensure_ended()?;
    haproxy.wait("the new primary is found", |it| {
        if let Ok(mut session) = Session::connect(it.write, SUPERUSER, "postgres", SOON) {
            ensure!(session.ask_writable(SOON)?, "a writer is led to a standby");
        }
        it.leads_right(lab)
    })
}

pub fn httpchk_follows_a_switchover(lab: &Lab) -> Result<()> {
    let haproxy = Rendered::start(lab, "httpchk", &[])?;
    follows_a_switchover(lab, &haproxy)
}

pub fn redirect_leads_to_the_right_primary(lab: &Lab) -> Result<()> {
    let old = lab.primary()?.name.clone();
    let haproxy = Rendered::start(lab, "redirect", &["--local", &old, "--pass", "192.0.2.1"])?;
    follows_a_switchover(lab, &haproxy)?;
    drop(haproxy);
    // Who is named comes to the old one, although it is a standby now.
    let named = format!("{}/8", lab.host_ip());
    let haproxy = Rendered::launch(lab, "redirect", &["--local", &old, "--pass", &named])?;
    let old = lab.member(&old)?.ip.to_string();
    haproxy.wait("the old one is reached", |it| {
        ensure!(Kept::open(it.write)?.member_ip() == old, "a named client is led elsewhere");
        Ok(())
    })
}

pub fn agent_follows_a_switchover_and_nobody_is_down(lab: &Lab) -> Result<()> {
    let more = format!("{AGENT}'{}'\n", agent(lab));
    let steer = Steer::start(lab, &Wanted { more: &more, ..Wanted::default() })?;
    let haproxy = Rendered::start(lab, "agent", &["--agent", &agent(lab).to_string()])?;
    let all_well = |it: &Rendered| {
        let shown = it.shown()?;
        let fit = shown.values().filter(|status| status.as_str() == "UP").count();
        let rest = shown.values().filter(|status| status.as_str() == "MAINT").count();
        ensure!((fit, rest) == (lab.members().len(), lab.members().len()), "not all is well");
        Ok(())
    };
    haproxy.wait("all is well", all_well)?;
    follows_a_switchover(lab, &haproxy)?;
    haproxy.wait("all is well again", all_well)?;
    // Without the agent the check beside it keeps writers from the member that was primary.
    drop(steer);
    lab.switchover(None)?;
    let gone = |it: &Rendered| {
        let served = Session::connect(it.write, SUPERUSER, "postgres", Duration::from_secs(1));
        ensure!(served.is_err(), "somebody is served by what an agent said that is gone");
        Ok(())
    };
    haproxy.wait("nobody is served", gone)
}

pub fn pgsteer_behind_holds_clients_through_a_switchover(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let door = lab.host_ip().to_string();
    let haproxy = Rendered::start(lab, "pgsteer", &["--door", &door])?;
    follows_a_switchover(lab, &haproxy)?;
    drop(steer);
    Ok(())
}

pub fn sql_follows_a_switchover_and_blocks_two_primaries(lab: &Lab) -> Result<()> {
    let haproxy = Rendered::start(lab, "sql", &["--check-user", SUPERUSER])?;
    follows_a_switchover(lab, &haproxy)?;
    haproxy.wait("the old primary is a replica", |_| {
        let answers = |member: &&Member| lab.sql(&member.name, "SELECT 1").is_ok();
        ensure!(lab.members().iter().filter(answers).count() == lab.members().len(), "not yet");
        Ok(())
    })?;
    for member in lab.members() {
        // Alive it would undo the promotion.
        lab.kill_patroni(&member.name)?;
    }
    let mut writer = Kept::open(haproxy.write)?;
    writer.ensure_alive()?;
    let first = lab.primary()?.name.clone();
    let second = lab.replicas()?[0].name.clone();
    lab.promote_by_hand(&second)?;
    let promoted = Instant::now();
    // HAProxy asks now and then; --detect says how often.
    while writer.ensure_alive().is_ok() {
        ensure!(promoted.elapsed() < 2 * DETECT_TIME, "a writer goes on beside a second primary");
        std::thread::sleep(Duration::from_millis(10));
    }
    haproxy.wait("nobody writes", |it| {
        let served = Session::connect(it.write, SUPERUSER, "postgres", Duration::from_secs(1));
        ensure!(served.is_err(), "two primaries, and a writer is let in");
        Ok(())
    })?;
    // A person decides.
    lab.crash(&second)?;
    let first = lab.member(&first)?.ip.to_string();
    haproxy.wait("the one that is left is found", |it| {
        ensure!(Kept::open(it.write)?.member_ip() == first, "a writer is led elsewhere");
        Ok(())
    })
}
