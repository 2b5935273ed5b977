//! Orders of an operator: members are drained, sessions are listed and ended.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::Lab;
use serde_json::Value;

use super::replicas::{is_back, is_drained, reader_at, two_replicas};
use crate::binary;
use crate::clients::{run, run_failing};
use crate::kept::Kept;
use crate::rendered::{Rendered, push_section};
use crate::steer::{Steer, Wanted};

const SOON: Duration = Duration::from_secs(20);

/// An order has to reach the proxy within this time.
const IN_FORCE_MS_MAX: f64 = 20.0;

/// A pgsteer with a control socket, a state directory and an agent of its own.
struct Setup {
    cluster: String,
    more: String,
    socket: String,
    agent: SocketAddr,
}

impl Setup {
    fn new(lab: &Lab) -> Result<Setup> {
        let state = lab.folder().join("drain-state");
        let _ = std::fs::remove_dir_all(&state);
        let socket = lab.folder().join("drain/control.sock").display().to_string();
        let agent = SocketAddr::from((lab.host_ip(), 5555));
        let cluster = format!("state_directory = '{}'", state.display());
        let more = format!("[control]\nsocket = '{socket}'\n[agent]\nlisten = '{agent}'");
        Ok(Setup { cluster, more, socket, agent })
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted { cluster: &self.cluster, more: &self.more, ..Wanted::default() }
    }

    /// A command of the operator.
    fn order(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary::pgsteer()?);
        command.args(words).args(["--socket", &self.socket]);
        Ok(command)
    }

    /// The agent's answer about `member` for the read service.
    fn agent_says(&self, member: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.agent).context("no agent")?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(format!("read {member}\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// The time until an order was in force, from the output of its command.
fn in_force_after_ms(printed: &str) -> Result<f64> {
    let (_, rest) = printed.split_once("in force after ").context("no time in the output")?;
    let number = rest.split(' ').next().unwrap_or_default();
    number.parse().with_context(|| format!("no number: {printed}"))
}

fn ensure_quick(printed: &str) -> Result<()> {
    let millis = in_force_after_ms(printed)?;
    println!("an order was in force after {millis} ms");
    ensure!(millis <= IN_FORCE_MS_MAX, "{printed}");
    Ok(())
}

pub fn a_drained_replica_keeps_its_sessions_and_opens_at_once(lab: &Lab) -> Result<()> {
    let setup = Setup::new(lab)?;
    let steer = Steer::start(lab, &setup.wanted())?;
    let [drained, _] = two_replicas(lab)?;
    let mut old = reader_at(lab, &steer, &drained)?;
    let order = ["drain", &drained, "--until", "1h", "--why", "new disk"];
    ensure_quick(&run(&mut setup.order(&order)?)?)?;
    is_drained(lab, &steer, &drained, &mut old, "drained_by_operator")?;
    let answer = setup.agent_says(&drained)?;
    ensure!(answer.starts_with("drain"), "{answer}");
    let listed = run(&mut setup.order(&["sessions", "--member", &drained, "--json"])?)?;
    let listed: Value = serde_json::from_str(&listed)?;
    ensure!(listed["sessions"][0]["member"] == drained.as_str(), "{listed}");
    let explained = run(&mut setup.order(&["explain", "read"])?)?;
    ensure!(explained.contains("new disk") && explained.contains("pgsteer undrain"), "{explained}");

    let began = Instant::now();
    ensure_quick(&run(&mut setup.order(&["undrain", &drained])?)?)?;
    println!("the command `undrain` took {:?}", began.elapsed());
    ensure!(steer.gate("read", &drained)?.is("open", ""), "it opens in the same turn");
    is_back(lab, &steer, &drained, &mut old)?;

    let ended = run(&mut setup.order(&["end-sessions", &drained])?)?;
    ensure!(ended.contains("ended"), "{ended}");
    let message = old.ensure_ended()?;
    ensure!(message.contains("ended by operator"), "{message}");
    Ok(())
}

pub fn an_order_survives_an_upgrade_without_a_state_directory(lab: &Lab) -> Result<()> {
    let setup = Setup::new(lab)?;
    let wanted = Wanted { cluster: "state_directory = 'none'", ..setup.wanted() };
    let steer = Steer::start(lab, &wanted)?;
    let [drained, _] = two_replicas(lab)?;
    let mut old = reader_at(lab, &steer, &drained)?;
    run(&mut setup.order(&["drain", &drained, "--until", "1h"])?)?;
    is_drained(lab, &steer, &drained, &mut old, "drained_by_operator")?;
    steer.upgrade(steer.pid())?;
    is_drained(lab, &steer, &drained, &mut old, "drained_by_operator")?;
    steer.wait_for("the new process to take orders", SOON, |_| {
        let undrained = setup.order(&["undrain", &drained]).and_then(|mut order| run(&mut order));
        undrained.is_ok()
    })?;
    is_back(lab, &steer, &drained, &mut old)
}

pub fn an_order_reaches_haproxy(lab: &Lab) -> Result<()> {
    let setup = Setup::new(lab)?;
    let haproxy = Rendered::start(lab, "push", &[])?;
    let more = format!("{}\n{}", setup.more, push_section(lab));
    let _steer = Steer::start(lab, &Wanted { more: &more, ..setup.wanted() })?;
    let [drained, _] = two_replicas(lab)?;
    let serves = |it: &Rendered| -> Result<bool> {
        let shown = it.shown()?;
        Ok(shown.get(&format!("read {drained}")).context("no such server")?.serves())
    };
    haproxy.wait("all is right", |it| ensured(serves(it)?, "it does not serve yet"))?;
    let mut old = Kept::several(haproxy.read, 4)?;
    let began = Instant::now();
    run(&mut setup.order(&["drain", &drained])?)?;
    haproxy.wait("HAProxy follows the order", |it| ensured(!serves(it)?, "it still serves"))?;
    println!("HAProxy has followed {:?} after the start of the command", began.elapsed());
    for session in &mut old {
        session.ensure_alive()?;
    }
    run(&mut setup.order(&["undrain", &drained])?)?;
    haproxy.wait("HAProxy follows the end of it", |it| ensured(serves(it)?, "it does not serve"))
}

fn ensured(is_so: bool, otherwise: &'static str) -> Result<()> {
    ensure!(is_so, otherwise);
    Ok(())
}

pub fn an_order_survives_a_restart_and_expires(lab: &Lab) -> Result<()> {
    let setup = Setup::new(lab)?;
    let steer = Steer::start(lab, &setup.wanted())?;
    let [drained, _] = two_replicas(lab)?;
    run(&mut setup.order(&["drain", &drained, "--until", "15s"])?)?;
    // As after SIGKILL: its socket is left behind.
    drop(steer);
    let began = Instant::now();
    let steer = Steer::start_blind(lab, &setup.wanted())?;
    steer.wait_for_gate("read", &drained, "draining", SOON)?;
    let opened = format!("read gate of {drained} is open");
    ensure!(
        !steer.messages().contains(&opened),
        "the order is in force before the first gate opens"
    );
    steer.wait_for_log("order expired", SOON)?;
    println!("it expired {:?} after the restart", began.elapsed());
    steer.wait_for_gate("read", &drained, "open", SOON)
}

pub fn an_order_that_leaves_no_member_is_refused(lab: &Lab) -> Result<()> {
    let setup = Setup::new(lab)?;
    let steer = Steer::start(lab, &setup.wanted())?;
    let primary = lab.primary()?.name.clone();
    let refused = run_failing(&mut setup.order(&["drain", &primary])?)?;
    ensure!(refused.contains("--force") && refused.contains("write"), "{refused}");
    let refused = run_failing(&mut setup.order(&["drain", "n9"])?)?;
    ensure!(refused.contains("the members are n1, n2, n3"), "{refused}");
    let refused = run_failing(&mut setup.order(&["explain", "raed"])?)?;
    ensure!(refused.contains("the services are read, write"), "{refused}");
    let mut elsewhere = Command::new(binary::pgsteer()?);
    elsewhere.args(["sessions", "--socket", "/nonexistent/control.sock"]);
    let refused = run_failing(&mut elsewhere)?;
    ensure!(refused.contains("there is no socket"), "{refused}");
    run(&mut setup.order(&["drain", &primary, "--force", "--until", "1m"])?)?;
    steer.wait_for_gate("write", &primary, "draining", SOON)?;
    run(&mut setup.order(&["undrain", &primary])?)?;
    steer.wait_for_gate("write", &primary, "open", SOON)
}
