//! Query cancellation: the right query is cancelled, and no other, on whichever replica it runs.

use std::net::SocketAddr;
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session, Signal};

use super::join;
use crate::clients::{psql, python, run};
use crate::steer::{Steer, Wanted};

/// Far longer than the test may take.
const SLEEP: &str = "SELECT pg_sleep(300)";
const LIMIT: Duration = Duration::from_secs(60);

/// Runs ten queries on both replicas; libpq cancels them one after the other.
pub fn libpq_cancels_the_intended_query(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let printed = run(&mut python("cancels.py", steer.doors.read)?)?;
    ensure!(printed == "10 cancelled, on 2 members", "{printed}");
    Ok(())
}

/// Ctrl-C in psql.
pub fn ctrl_c_in_psql_cancels_the_query(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    for _ in 0..4 {
        let mut command = psql(lab, steer.doors.read);
        command.args(["-c", SLEEP]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("cannot run psql")?;
        wait_for_sleepers(lab, 1)?;
        signal(child.id())?;
        let output = child.wait_with_output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(words.contains("canceling statement due to user request"), "{words}");
        wait_for_sleepers(lab, 0)?;
    }
    Ok(())
}

/// Two pgsteers share no state, and a cancel request may arrive at the other one.
pub fn a_second_pgsteer_cancels_a_query_of_the_first(lab: &Lab) -> Result<()> {
    let first = Steer::start(lab, &Wanted::default())?;
    let other = Wanted { name: "other", shift: 100, ..Wanted::default() };
    let second = Steer::start(lab, &other)?;
    let mut sleepers: Vec<Sleeper> =
        (0..6).map(|_| Sleeper::start(first.doors.read)).collect::<Result<_>>()?;
    wait_for_sleepers(lab, sleepers.len())?;
    while let Some(sleeper) = sleepers.pop() {
        Session::cancel(second.doors.read, sleeper.key)?;
        let words = join(sleeper.query)?;
        ensure!(words.contains("57014"), "{words}");
        // No other query was cancelled.
        wait_for_sleepers(lab, sleepers.len())?;
        ensure!(sleepers.iter().all(|sleeper| !sleeper.query.is_finished()));
    }
    Ok(())
}

/// A session with a query that does not end by itself.
struct Sleeper {
    key: [i32; 2],
    /// The error that ends the query.
    query: JoinHandle<String>,
}

impl Sleeper {
    fn start(door: SocketAddr) -> Result<Sleeper> {
        let mut session = Session::connect(door, SUPERUSER, "postgres", LIMIT)?;
        let key = session.cancel_key();
        let query = std::thread::spawn(move || match session.query(SLEEP, LIMIT) {
            Ok(_) => "it slept to its end".to_owned(),
            Err(error) => error.to_string(),
        });
        Ok(Sleeper { key, query })
    }
}

/// Waits until this number of sessions sleep, over all members.
fn wait_for_sleepers(lab: &Lab, count: usize) -> Result<()> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let mut found = 0;
        for member in lab.members() {
            found += lab.sql(&member.name, sql)?.len();
        }
        if found == count {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{found} instead of {count} sessions sleep");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(pid: u32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
    rustix::process::kill_process(pid, Signal::INT).context("cannot signal psql")
}
