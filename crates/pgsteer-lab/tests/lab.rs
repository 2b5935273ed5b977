//! The lab with each Patroni: start, switchover, crash and return, each compared with the
//! observer's log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{
    Lab, LabOptions, Network, PatroniVersion, SUPERUSER, Session, Standing, Truth, TruthEvent,
};

#[test]
fn debians_patroni_on_loopback() -> Result<()> {
    let lab = start(PatroniVersion::Debian, Network::Loopback)?;
    patroni_calls_its_primary(&lab, "master")?;
    logins_have_their_privileges_only(&lab)?;
    haproxy_runs_beside_it(&lab)?;
    switchover_is_seen(&lab)?;
    killed_replica_comes_back(&lab)?;
    nothing_is_left_of(lab)
}

#[test]
fn newer_patroni_in_namespaces_or_on_loopback() -> Result<()> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt;
        me.uid() == 0
    });
    let network = if root { Network::Namespaces } else { Network::Loopback };
    let lab = start(PatroniVersion::Pip, network)?;
    patroni_calls_its_primary(&lab, "primary")?;
    switchover_is_seen(&lab)?;
    frozen_member_is_silent(&lab)?;
    if root {
        unplugged_member_is_silent(&lab)?;
    }
    killed_primary_is_succeeded(&lab)?;
    nothing_is_left_of(lab)
}

fn start(patroni: PatroniVersion, network: Network) -> Result<Lab> {
    let lab = Lab::start(LabOptions { patroni, network, ..LabOptions::default() })?;
    println!("{patroni} on {network} stood after {:?}", lab.started_in());
    Ok(lab)
}

fn patroni_calls_its_primary(lab: &Lab, word: &str) -> Result<()> {
    let printed = lab.patroni_status(&lab.primary()?.name)?;
    ensure!(printed["role"] == word, "Patroni reports {printed}");
    Ok(())
}

/// Uses psql, so that real SCRAM is tested, to the server and through the pooler.
fn logins_have_their_privileges_only(lab: &Lab) -> Result<()> {
    let psql = |dsn: &str, sql: &str| -> Result<bool> {
        let output = std::process::Command::new(lab.postgres_bin().join("psql"))
            .args(["-XAtq", "-c", sql, dsn])
            .output()
            .context("cannot run psql")?;
        Ok(output.status.success())
    };
    let primary = lab.primary()?;
    let table = "CREATE TABLE t (n int)";
    ensure!(psql(&primary.app_dsn(), table)?, "app may not create a table");
    ensure!(
        psql(&primary.pooled_dsn(), "INSERT INTO t VALUES (1)")?,
        "no session through PgBouncer"
    );
    ensure!(psql(&primary.check_dsn(), "SELECT 1")?, "pgcheck may not log in");
    ensure!(!psql(&primary.check_dsn(), table)?, "pgcheck may create a table");
    ensure!(!psql(&primary.check_dsn(), "CREATE TEMP TABLE t (n int)")?, "pgcheck may use space");
    let wrong = primary.check_dsn().replace(":pgcheck@", ":wrong@");
    ensure!(!psql(&wrong, "SELECT 1")?, "a wrong password is accepted");
    Ok(())
}

fn haproxy_runs_beside_it(lab: &Lab) -> Result<()> {
    let wrong = lab.haproxy("wrong", "frontend nonsense\n  bind here\n");
    ensure!(wrong.is_err(), "HAProxy accepts an invalid file");
    let address = SocketAddr::from((lab.members()[0].ip, 15_000));
    let listen = format!(
        "listen x\n  mode tcp\n  timeout connect 1s\n  timeout client 9s\n  timeout server 9s\n  \
         bind {address}\n  server n1 {}\n",
        lab.primary()?.postgres_addr()
    );
    let mut haproxy = lab.haproxy("haproxy", &listen)?;
    let arrived = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let session = Session::connect(address, SUPERUSER, "postgres", Duration::from_secs(1));
        session.is_ok_and(|session| session.is_writable())
    });
    ensure!(arrived, "no session through HAProxy: {}", haproxy.log());
    haproxy.terminate(Duration::from_secs(5))?;
    Ok(())
}

fn switchover_is_seen(lab: &Lab) -> Result<()> {
    let truth = Truth::watch(lab)?;
    let old = lab.primary()?.name.clone();
    ensure!(truth.writable() == [old.clone()], "{:?}", truth.log());
    let ordered = Instant::now();
    let new = lab.switchover(None)?.name.clone();
    ensure!(new != old);
    let since = truth.writable_since(&new).context("the observer missed it")?;
    println!("switchover: writable after {:?}", since - ordered);
    let lost = first(&truth, &old, |standing| standing != Standing::Writable)?;
    ensure!(lost.at <= since, "two primaries: {:?}", truth.log());
    lab.reset()
}

fn killed_replica_comes_back(lab: &Lab) -> Result<()> {
    let truth = Truth::watch(lab)?;
    let name = lab.replicas()?[0].name.clone();
    lab.crash(&name)?;
    truth.wait_for_standing(&name, Standing::Down, Duration::from_secs(1))?;
    lab.reset()?;
    truth.wait_for_standing(&name, Standing::ReadOnly, Duration::from_secs(1))?;
    Ok(())
}

fn frozen_member_is_silent(lab: &Lab) -> Result<()> {
    let truth = Truth::watch(lab)?;
    let name = lab.primary()?.name.clone();
    lab.freeze(&name)?;
    truth.wait_for_standing(&name, Standing::Silent, Duration::from_secs(1))?;
    lab.thaw(&name)?;
    truth.wait_for_standing(&name, Standing::Writable, Duration::from_secs(1))?;
    lab.reset()
}

fn unplugged_member_is_silent(lab: &Lab) -> Result<()> {
    let truth = Truth::watch(lab)?;
    let name = lab.replicas()?[0].name.clone();
    lab.partition(&name)?;
    truth.wait_for_standing(&name, Standing::Silent, Duration::from_secs(1))?;
    lab.heal(&name)?;
    truth.wait_for_standing(&name, Standing::ReadOnly, Duration::from_secs(3))?;
    lab.reset()
}

fn killed_primary_is_succeeded(lab: &Lab) -> Result<()> {
    let truth = Truth::watch(lab)?;
    let old = lab.primary()?.name.clone();
    let killed = Instant::now();
    lab.crash(&old)?;
    let new = truth.wait_for_successor(&old, Duration::from_secs(40))?;
    println!("crash: {} writable after {:?}", new.member, new.at - killed);
    lab.reset()?;
    println!("the old primary is a replica {:?} after that", new.at.elapsed());
    ensure!(lab.primary()?.name == new.member);
    Ok(())
}

fn nothing_is_left_of(lab: Lab) -> Result<()> {
    let (id, folder) = (lab.id().to_owned(), lab.folder().to_owned());
    drop(lab);
    ensure!(!folder.exists(), "{} is still there", folder.display());
    let mark = format!("PGSTEER_LAB={id}").into_bytes();
    let marked = std::fs::read_dir("/proc")?.flatten().find(|entry| {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == mark)
    });
    ensure!(marked.is_none(), "still running: {marked:?}");
    let interface = format!("/sys/class/net/pgl{id}");
    ensure!(!std::path::Path::new(&interface).exists(), "{interface} is still there");
    Ok(())
}

fn first(truth: &Truth, name: &str, wanted: impl Fn(Standing) -> bool) -> Result<TruthEvent> {
    truth
        .log()
        .into_iter()
        .find(|event| event.member == name && wanted(event.standing))
        .with_context(|| format!("no such event for {name}: {:?}", truth.log()))
}
