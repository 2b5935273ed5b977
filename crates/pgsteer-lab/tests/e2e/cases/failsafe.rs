//! Failsafe mode: etcd is down, Patroni keeps its primary, and pgsteer is restarted meanwhile.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, Member, SUPERUSER, Session};

use crate::binary;
use crate::steer::{Steer, Wanted};

/// Longer than Patroni needs to notice that etcd is gone.
const NOTICE_LIMIT: Duration = Duration::from_secs(40);
/// For how long a new agent is asked.
const AGENT_TIME: Duration = Duration::from_secs(6);

/// The stored member list is used, and an agent without one answers from its own Patroni.
pub fn a_restart_while_etcd_is_down_refuses_no_client(lab: &Lab) -> Result<()> {
    lab.set_failsafe_mode(true)?;
    let played = restart_while_etcd_is_down(lab);
    lab.start_etcd()?;
    played?;
    lab.wait_healthy(Duration::from_secs(60))?;
    lab.set_failsafe_mode(false)
}

fn restart_while_etcd_is_down(lab: &Lab) -> Result<()> {
    let directory = empty_directory(lab)?;
    let cluster = format!("state_directory = '{}'", directory.display());
    let wanted = Wanted { cluster: &cluster, ..Wanted::default() };
    let primary = lab.primary()?;
    let steer = Steer::start(lab, &wanted)?;
    steer.wait_for("the member list to be stored", NOTICE_LIMIT, |_| {
        directory.read_dir().is_ok_and(|mut files| files.next().is_some())
    })?;
    lab.stop_etcd()?;
    steer.wait_for("Patroni to lose etcd", NOTICE_LIMIT, |_| lab.cluster_status().is_err())?;
    ensure_served(&steer, primary)?;
    drop(steer);
    // Returns when all gates are right.
    let steer = Steer::start(lab, &wanted)?;
    ensure_served(&steer, primary)?;
    let cluster = &steer.status()?["clusters"][0];
    ensure!(cluster["members_from"] == "stored", "{cluster}");
    drop(steer);
    an_agent_never_sends_down(lab, primary)
}

fn empty_directory(lab: &Lab) -> Result<PathBuf> {
    let directory = lab.folder().join("pgsteer-state");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).context("cannot make the state directory")?;
    Ok(directory)
}

fn ensure_served(steer: &Steer, primary: &Member) -> Result<()> {
    let mut session =
        Session::connect(steer.doors.write, SUPERUSER, "postgres", Duration::from_secs(5))
            .context("a writer is refused while etcd is down")?;
    let sql = "select host(inet_server_addr()), pg_is_in_recovery()";
    let rows = session.query(sql, Duration::from_secs(5))?;
    let expected = vec![vec![Some(primary.ip.to_string()), Some("f".to_owned())]];
    ensure!(rows == expected, "{rows:?} is not the primary {}", primary.name);
    Ok(())
}

/// Without an answer nothing changes for HAProxy; with `down` it would end the sessions of a healthy
/// primary.
fn an_agent_never_sends_down(lab: &Lab, primary: &Member) -> Result<()> {
    let door = SocketAddr::from((lab.host_ip(), 5655));
    let mut command = Command::new(binary::pgsteer()?);
    command.arg("agent").args(["--patroni-host", &primary.patroni_url()]);
    command.args(["--port", &door.to_string(), "--state-directory", "none"]);
    let _agent = lab.spawn("agent-failsafe", command)?;
    let (began, mut answers) = (Instant::now(), Vec::new());
    while began.elapsed() < AGENT_TIME {
        if let Some(answer) = ask(door) {
            answers.push(answer);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(!answers.iter().any(|answer| answer.contains("down")), "{answers:?}");
    let last = answers.last().context("the agent does not listen")?;
    ensure!(last.starts_with("ready up"), "{answers:?}");
    Ok(())
}

/// The line; empty if the connection is closed without one.
fn ask(door: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(door).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
