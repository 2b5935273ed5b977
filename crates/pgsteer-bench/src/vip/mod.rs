//! An address that follows the primary: pgsteer beside vip-manager, on one cluster and through the same
//! switchovers.

mod nodes;
mod prober;
mod report;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pgsteer_lab::{Lab, LabOptions, Network, PatroniVersion, Truth, which};

use self::nodes::{Forwarders, Program, Programs};
use self::prober::Prober;
use crate::{bench_setup, versions};

/// The longest wait for an address, and for the cluster.
const LIMIT: Duration = Duration::from_secs(60);

/// The time between two switchovers.
const PAUSE: Duration = Duration::from_secs(5);

/// The last numbers of the two addresses.
const PGSTEER_HOST: u8 = 200;
const VIP_MANAGER_HOST: u8 = 201;

/// The port at which a program on each member forwards to its PostgreSQL.
const PORT: u16 = 5_400;

/// The plan of one run.
#[derive(Debug)]
pub struct Plan {
    pub switchovers: usize,
}

/// The first write of a client after a switchover, counted from the promotion, by program.
#[derive(Debug)]
pub struct Waits {
    pub pgsteer: Vec<Duration>,
    pub vip_manager: Vec<Duration>,
}

/// Runs the benchmark and returns the text of its section.
///
/// # Errors
/// It does not run as root, vip-manager is not installed, or the cluster fails.
pub fn run(plan: &Plan) -> Result<String> {
    bench_setup::raise_file_limit();
    let binary = bench_setup::pgsteer_binary()?;
    let peer =
        which("vip-manager").context("there is no vip-manager: apt-get install vip-manager")?;
    // vip-manager 1.0 reads etcd by its v2 API, which this Patroni uses.
    let (network, patroni) = (Network::Namespaces, PatroniVersion::Debian);
    let lab = Lab::start(LabOptions { network, patroni, ..LabOptions::default() })?;
    println!("the cluster is up");
    let (ours, theirs) = (vip(&lab, PGSTEER_HOST), vip(&lab, VIP_MANAGER_HOST));
    let _forwarders = Forwarders::start(&lab, PORT)?;
    let _pgsteers = Programs::start(&lab, &Program::Pgsteer { binary: &binary, vip: ours })?;
    let _managers = Programs::start(&lab, &Program::VipManager { binary: &peer, vip: theirs })?;
    let waits = measure(&lab, plan, [ours, theirs])?;
    Ok(report::section(&waits, &versions::lines(&lab, &binary), &nodes::version(&peer)))
}

fn vip(lab: &Lab, host: u8) -> Ipv4Addr {
    let [a, b, c, _] = lab.host_ip().octets();
    Ipv4Addr::new(a, b, c, host)
}

fn measure(lab: &Lab, plan: &Plan, vips: [Ipv4Addr; 2]) -> Result<Waits> {
    let mut waits = Waits { pgsteer: Vec::new(), vip_manager: Vec::new() };
    let truth = Truth::watch(lab)?;
    let primary = lab.primary()?.name.clone();
    lab.sql(&primary, "CREATE TABLE IF NOT EXISTS vip_writes (at timestamptz)")?;
    let probers = vips.map(|vip| Prober::start(SocketAddr::new(IpAddr::V4(vip), PORT)));
    for prober in &probers {
        first_write(prober, &lab.primary()?.ip.to_string(), Instant::now())?;
    }
    for number in 1..=plan.switchovers {
        std::thread::sleep(PAUSE);
        let old = lab.primary()?.name.clone();
        let order = lab.order_switchover(None)?;
        let new = truth.wait_for_successor(&old, LIMIT)?;
        let ip = lab.member(&new.member)?.ip.to_string();
        let mut firsts = [Duration::ZERO; 2];
        for (first, prober) in firsts.iter_mut().zip(&probers) {
            *first = first_write(prober, &ip, new.at)?.saturating_duration_since(new.at);
        }
        println!("switchover {number}: pgsteer {:.0?}, vip-manager {:.0?}", firsts[0], firsts[1]);
        waits.pgsteer.push(firsts[0]);
        waits.vip_manager.push(firsts[1]);
        order.wait()?;
        lab.reset_within(LIMIT)?;
    }
    Ok(waits)
}

/// Waits for the first write at the member with this address after `since`, and returns when it ended.
fn first_write(prober: &Prober, ip: &str, since: Instant) -> Result<Instant> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Some(at) = prober.first_write(ip, since) {
            return Ok(at);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("no write at {ip} by {} within {LIMIT:?}", prober.address());
}
