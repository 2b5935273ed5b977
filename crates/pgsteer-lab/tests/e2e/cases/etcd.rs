//! The etcd watch: pgsteer detects a switchover before it begins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use pgsteer_lab::Lab;
use pgsteer_lab::scram_client::Client as ScramClient;

use crate::steer::{Steer, Wanted};

/// Clients that log in again and again, so that some are always in the middle of a login.
const CLIENTS: usize = 6;
const SWITCHOVERS: usize = 3;
const LOGIN_LIMIT: Duration = Duration::from_secs(20);

/// SCRAM clients log in all the time. A client that received the old primary's challenge can finish
/// its login only there, so the old primary must not stop before that.
pub fn logins_are_held_back_before_the_old_primary_stops(lab: &Lab) -> Result<()> {
    let urls = lab.etcd_urls();
    ensure!(!urls.is_empty(), "this Patroni writes by etcd's v2 API");
    let section = format!("[etcd]\nurls = {urls:?}\n");
    let steer = Steer::start(lab, &Wanted { more: &section, ..Wanted::default() })?;
    wait_for_etcd(&steer, "watched")?;
    let logins = Logins::start(steer.doors.write);
    std::thread::sleep(Duration::from_secs(1));
    let mut olds = Vec::new();
    for _ in 0..SWITCHOVERS {
        olds.push(lab.primary()?.name.clone());
        let new = lab.switchover(None)?.name.clone();
        steer.wait_for_gate("write", &new, "open", Duration::from_secs(10))?;
        lab.wait_healthy(Duration::from_secs(30))?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let Tally { done, failed } = logins.finish()?;
    ensure!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), failed.len() + done);
    ensure!(done > 100, "only {done} logins");
    let mut messages = steer.messages().into_iter();
    for old in &olds {
        let drained =
            format!("write gate of {old} is draining: a switchover away from it is planned");
        messages.find(|line| *line == drained).with_context(|| format!("no order for {old}"))?;
        let next = messages.find(|line| line.starts_with(&format!("write gate of {old} is ")));
        let next = next.with_context(|| format!("{old} never stopped"))?;
        ensure!(next.contains(" is shut: "), "{next}");
    }
    Ok(())
}

/// The etcd address has no listener: pgsteer works as without etcd and logs that once.
pub fn an_unreachable_etcd_changes_nothing(lab: &Lab) -> Result<()> {
    let more = "[etcd]\nurls = ['http://127.0.0.1:1']\n";
    let steer = Steer::start(lab, &Wanted { more, ..Wanted::default() })?;
    wait_for_etcd(&steer, "lost")?;
    let primary = lab.primary()?.name.clone();
    let gate = steer.gate("write", &primary)?;
    ensure!(gate.is("open", ""), "{gate:?}");
    super::switchover::under_load(lab, &steer, Duration::from_secs(10))?;
    let printed =
        steer.messages().into_iter().filter(|line| line.starts_with("etcd is not watched"));
    ensure!(printed.count() == 1, "the loss of etcd is logged once");
    Ok(())
}

fn wait_for_etcd(steer: &Steer, word: &str) -> Result<()> {
    let limit = Duration::from_secs(10);
    steer.wait_for(&format!("etcd to be {word}"), limit, |steer| {
        steer.status().is_ok_and(|status| status["clusters"][0]["etcd"] == word)
    })
}

/// Clients that log in and log out.
struct Logins {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Tally>>>,
}

/// The number of successful logins, and the failures of the others.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    failed: Vec<String>,
}

impl Logins {
    fn start(door: SocketAddr) -> Logins {
        let ended = Arc::new(AtomicBool::new(false));
        let thread = |_| {
            let stop = Arc::clone(&ended);
            std::thread::spawn(move || log_in_and_out(door, &stop))
        };
        let threads = (0..CLIENTS).map(thread).collect();
        Logins { ended, threads }
    }

    fn finish(self) -> Result<Tally> {
        self.ended.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for thread in self.threads {
            let Tally { done, failed } = thread.join().map_err(|_| anyhow!("a client died"))??;
            all.done += done;
            all.failed.extend(failed);
        }
        Ok(all)
    }
}

fn log_in_and_out(door: SocketAddr, ended: &AtomicBool) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut tally = Tally::default();
    while !ended.load(Ordering::Relaxed) {
        let login = async { tokio::time::timeout(LOGIN_LIMIT, ScramClient::login(door)).await };
        match runtime.block_on(login) {
            Ok(Ok(client)) => {
                tally.done += 1;
                runtime.block_on(client.leave());
            }
            Ok(Err(failure)) => tally.failed.push(failure.label()),
            Err(_) => tally.failed.push("no answer".to_owned()),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(tally)
}
