//! An address that follows the primary, with a pgsteer on each member.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session, Signal, Truth};

use crate::traffic::Traffic;
use crate::vip_nodes::VipNodes;

const READY_LIMIT: Duration = Duration::from_secs(15);

/// The longest wait after the new primary takes writes, on a busy machine.
const WRITE_LIMIT: Duration = Duration::from_millis(1_000);

/// After a switchover, a client on the network writes to the address soon after the new primary takes
/// writes, and no two members ever have the address.
pub fn the_address_is_where_writes_are_possible_right_after_a_switchover(lab: &Lab) -> Result<()> {
    let nodes = VipNodes::start(lab, "write")?;
    let old = lab.primary()?.name.clone();
    nodes.wait_for_holders(&[&old], READY_LIMIT)?;
    let truth = Truth::watch(lab)?;
    let limit = Duration::from_millis(500);
    let writes = Traffic::writes(lab, nodes.door(), Duration::from_millis(10), limit)?;
    std::thread::sleep(Duration::from_millis(500));
    lab.switchover(None)?;
    let new = truth.wait_for_successor(&old, READY_LIMIT)?;
    nodes.wait_for_holders(&[&new.member], Duration::from_secs(5))?;
    std::thread::sleep(Duration::from_millis(1_500));
    let writes = writes.finish()?;
    let ip = lab.member(&new.member)?.ip.to_string();
    let first = writes.done().filter(|(_, by)| *by == ip).map(|(each, _)| each.ended).min();
    let first = first.with_context(|| format!("no write at {}: {writes}", new.member))?;
    let wait = first.saturating_duration_since(new.at);
    ensure!(wait < WRITE_LIMIT, "the first write was {wait:?} after the promotion");
    let overlap = nodes.longest_overlap();
    ensure!(
        overlap.is_zero(),
        "two members had the address for {overlap:?}: {:?}",
        nodes.history()
    );
    let (code, line) = nodes.pgsteer(&new.member, &["check", "vip", "db"])?;
    ensure!(code == 0 && line.starts_with("yes: db: "), "{line}");
    let (code, line) = nodes.pgsteer(&old, &["check", "vip", "db"])?;
    ensure!(code == 1, "{line}");
    let (code, line) = nodes.pgsteer(&old, &["check", "vip", "other"])?;
    ensure!(code == 2 && line.contains("no [vip.other]"), "{line}");
    Ok(())
}

/// A crash of the primary, SIGTERM, and SIGKILL with a restart.
pub fn the_address_follows_a_crash_and_a_restart_of_pgsteer(lab: &Lab) -> Result<()> {
    let mut nodes = VipNodes::start(lab, "write")?;
    let old = lab.primary()?.name.clone();
    nodes.wait_for_holders(&[&old], READY_LIMIT)?;
    // SIGKILL leaves the address; the next pgsteer keeps it without a gap.
    let before = nodes.history().len();
    nodes.signal(&old, Signal::KILL)?;
    nodes.wait(&old)?;
    nodes.wait_for_holders(&[&old], Duration::from_secs(1))?;
    nodes.start_at(lab, &old)?;
    wait_for_log(&nodes, &old, "stays on eth0")?;
    ensure!(nodes.history().len() == before, "a gap: {:?}", nodes.history());
    // SIGTERM removes it, and the next pgsteer adds it again.
    nodes.signal(&old, Signal::TERM)?;
    nodes.wait(&old)?;
    ensure!(nodes.holders()?.is_empty(), "SIGTERM leaves the address");
    nodes.start_at(lab, &old)?;
    nodes.wait_for_holders(&[&old], READY_LIMIT)?;
    // A crash of the member.
    let truth = Truth::watch(lab)?;
    lab.crash(&old)?;
    lab.expire_lock()?;
    let new = truth.wait_for_successor(&old, Duration::from_secs(40))?;
    nodes.wait_for_holders(&[&new.member], Duration::from_secs(5))?;
    let overlap = nodes.longest_overlap();
    ensure!(
        overlap.is_zero(),
        "two members had the address for {overlap:?}: {:?}",
        nodes.history()
    );
    // A pgsteer that was killed while it held the address of a member that is no primary any more.
    nodes.signal(&new.member, Signal::KILL)?;
    nodes.wait(&new.member)?;
    lab.revive(&old)?;
    lab.reset_within(Duration::from_secs(40))?;
    lab.switchover(Some(&old))?;
    wait_for_log(&nodes, &old, "is a duplicate")?;
    nodes.start_at(lab, &new.member)?;
    nodes.wait_for_holders(&[&old], READY_LIMIT)?;
    // The same without a pgsteer: what systemd's ExecStopPost runs. It needs no valid configuration.
    nodes.signal(&old, Signal::KILL)?;
    nodes.wait(&old)?;
    std::fs::write(lab.folder().join(format!("vip-{old}.toml")), "a broken edit")?;
    let (code, line) = nodes.pgsteer(&old, &["vip", "release"])?;
    let removed = format!("{} is removed from eth0", nodes.vip_on_interface());
    ensure!(code == 0 && line.contains(&removed), "{line}");
    ensure!(!nodes.holders()?.contains(&old), "the address is still there");
    Ok(())
}

/// A new process takes over the address without a gap, with a proxy and without.
pub fn an_upgrade_keeps_the_address(lab: &Lab) -> Result<()> {
    for command in ["run", "agent"] {
        let mut nodes = VipNodes::start_command(lab, "write", command)?;
        let primary = lab.primary()?.name.clone();
        nodes.wait_for_holders(&[&primary], READY_LIMIT)?;
        let before = nodes.history().len();
        nodes.upgrade(&primary)?;
        // The new process looks at the kernel every half second.
        std::thread::sleep(Duration::from_millis(1_500));
        nodes.wait_for_holders(&[&primary], Duration::ZERO)?;
        ensure!(nodes.history().len() == before, "{command}: a gap: {:?}", nodes.history());
        wait_for_log(&nodes, &primary, "stays on eth0")?;
    }
    Ok(())
}

/// One replica has the address of the readers; another one gets it when that one is lost, and keeps it.
pub fn one_replica_has_the_address_of_readers(lab: &Lab) -> Result<()> {
    let mut nodes = VipNodes::start(lab, "read")?;
    let primary = lab.primary()?.name.clone();
    let first = nodes.wait_for_one_holder(READY_LIMIT)?;
    ensure!(first != primary, "the primary has the address of the readers");
    // It stays although another replica may be preferred.
    std::thread::sleep(Duration::from_secs(4));
    ensure!(nodes.holders()? == [first.clone()], "it moved: {:?}", nodes.history());
    lab.crash(&first)?;
    let began = Instant::now();
    let second = nodes.wait_for_another_holder(&first, READY_LIMIT)?;
    println!("{second} had the address {:?} after the crash of {first}", began.elapsed());
    ensure!(second != primary, "the primary has the address of the readers");
    lab.revive(&first)?;
    lab.reset_within(Duration::from_secs(40))?;
    std::thread::sleep(Duration::from_secs(4));
    ensure!(nodes.holders()? == [second.clone()], "it went back: {:?}", nodes.history());
    // A pgsteer that ends gives it up; one that is killed leaves it, and takes it again.
    nodes.signal(&second, Signal::TERM)?;
    nodes.wait(&second)?;
    let third = nodes.wait_for_another_holder(&second, READY_LIMIT)?;
    nodes.start_at(lab, &second)?;
    std::thread::sleep(Duration::from_secs(4));
    ensure!(nodes.holders()? == [third.clone()], "it moved: {:?}", nodes.history());
    let (code, line) = nodes.pgsteer(&third, &["check", "vip", "db"])?;
    ensure!(code == 0 && line.starts_with("yes: db: "), "{line}");
    let (code, line) = nodes.pgsteer(&second, &["check", "vip", "db"])?;
    ensure!(code == 1 && line.contains("has the address"), "{line}");
    let before = nodes.history().len();
    nodes.signal(&third, Signal::KILL)?;
    nodes.wait(&third)?;
    nodes.start_at(lab, &third)?;
    wait_for_log(&nodes, &third, "stays on eth0")?;
    ensure!(nodes.history().len() == before, "a gap: {:?}", nodes.history());
    let overlap = nodes.longest_overlap();
    ensure!(overlap.is_zero(), "two had the address for {overlap:?}: {:?}", nodes.history());
    Ok(())
}

/// etcd is lost; in failsafe mode the primary goes on, and so does the address.
pub fn the_address_stays_while_etcd_is_lost_in_failsafe_mode(lab: &Lab) -> Result<()> {
    let nodes = VipNodes::start(lab, "write")?;
    let primary = lab.primary()?.name.clone();
    nodes.wait_for_holders(&[&primary], READY_LIMIT)?;
    lab.set_failsafe_mode(true)?;
    let before = nodes.history().len();
    lab.stop_etcd()?;
    let deadline = Instant::now() + Duration::from_secs(25);
    while Instant::now() < deadline {
        let connected = Session::connect(nodes.door(), SUPERUSER, "postgres", READY_LIMIT);
        let mut session = connected.context("PostgreSQL does not accept a session")?;
        ensure!(session.ask_writable(READY_LIMIT)?, "the address is at a standby");
        std::thread::sleep(Duration::from_millis(500));
    }
    lab.start_etcd()?;
    nodes.wait_for_holders(&[&primary], Duration::from_secs(5))?;
    ensure!(nodes.history().len() == before, "it moved: {:?}", nodes.history());
    lab.set_failsafe_mode(false)
}

/// The address is removed by hand, added by hand at another member, where pgsteer reports it and does not
/// touch it, and answered for by a host that is no member.
pub fn an_address_that_is_not_right_is_corrected_and_reported(lab: &Lab) -> Result<()> {
    let nodes = VipNodes::start(lab, "write")?;
    let primary = lab.primary()?.name.clone();
    nodes.wait_for_holders(&[&primary], READY_LIMIT)?;
    let vip = format!("{}/24", nodes.vip());
    nodes.ip(&primary, &["address", "del", &nodes.vip_on_interface(), "dev", "eth0"])?;
    nodes.wait_for_holders(&[&primary], Duration::from_secs(3))?;
    wait_for_log(&nodes, &primary, "another program removed")?;
    let replica = lab.replicas()?.first().context("there is no replica")?.name.clone();
    nodes.ip(&replica, &["address", "add", &vip, "dev", "eth0"])?;
    let reported = wait_for_log(&nodes, &replica, "pgsteer did not add it");
    // pgsteer looks at the kernel every half second.
    std::thread::sleep(Duration::from_millis(1_500));
    let holders = nodes.holders()?;
    nodes.ip(&replica, &["address", "del", &vip, "dev", "eth0"])?;
    reported?;
    ensure!(holders.contains(&replica), "pgsteer removed an address that it did not add");
    nodes.wait_for_holders(&[&primary], Duration::from_secs(1))?;
    // The host of the lab takes the address. The primary defends it and reports it.
    let host = format!("pgl{}", lab.id());
    let by_host = |word: &str| {
        let words = ["address", word, &vip, "dev", &host];
        std::process::Command::new("ip").args(words).status()
    };
    ensure!(by_host("add")?.success(), "the host gets no address");
    let found = wait_for_log(&nodes, &primary, "is a duplicate");
    let reported = found.and_then(|()| wait_for_duplicate(&nodes, &primary));
    by_host("del")?;
    reported?;
    wait_for_log(&nodes, &primary, "no longer a duplicate")
}

/// Waits until status and check show the duplicate.
fn wait_for_duplicate(nodes: &VipNodes, member: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let (code, line) = nodes.pgsteer(member, &["check", "vip", "db"])?;
        let shown = nodes.status(member)?["duplicate"].is_string();
        if code == 1 && line.contains("answers for it too") && shown {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{code}: {line}, in the status: {shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_for_log(nodes: &VipNodes, member: &str, line: &str) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    while !nodes.log(member)?.contains(line) {
        ensure!(Instant::now() < deadline, "{member} does not log {line:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
