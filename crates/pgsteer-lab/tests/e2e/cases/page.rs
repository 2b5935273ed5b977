//! The live page in a real browser.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use pgsteer_lab::{Lab, SUPERUSER, Session, Signal};
use postgres_protocol::message::frontend;

use super::join;
use crate::browser::{Browser, is_measured, pictures};
use crate::kept::Kept;
use crate::steer::{Steer, Wanted};

/// The sentences of the page.
const SERVED: &str = "All services are served";
const UNSERVED: &str = "write is not served: no member is open";

/// Clients that wait for the new primary.
const WAITING: usize = 5;

/// How long they may wait. On a busy machine the pictures take longer than the usual hold.
const HOLD: Duration = Duration::from_secs(120);

/// Changes of gates that are measured.
const CHANGES: usize = 12;

/// The most time from a gate's change to the pixels, as a median: of the release build, which `make pictures`
/// measures, and of a debug build on a busy machine.
const PIXELS_MS_MAX: f64 = 100.0;
const PIXELS_DEBUG_MS_MAX: f64 = 500.0;

/// Pages that are open at once, and how long their cost is measured.
const PAGES: usize = 100;
const MEASURED: Duration = Duration::from_secs(6);

/// Clients that storm the door at a time.
const STORM: usize = 5_000;

/// The most time that a page may take meanwhile: of the release build, which `make pictures` measures, and of
/// a debug build on a busy machine.
const PAGE_MAX: Duration = Duration::from_millis(200);
const PAGE_DEBUG_MAX: Duration = Duration::from_secs(3);

/// For `make pictures`: the part of a core, and the memory, that all these pages may take.
const CORE_MAX: f64 = 0.03;
const MEMORY_KB_MAX: u64 = 10 * 1024;

/// A switchover, filmed at four sizes, light and dark, with and without JavaScript.
pub fn a_switchover_is_shown_as_it_happens(lab: &Lab) -> Result<()> {
    let write = format!("hold_seconds = {}", HOLD.as_secs());
    let steer = Steer::start(lab, &Wanted { write: &write, ..Wanted::default() })?;
    let old = lab.primary()?.name.clone();
    let _sessions = Kept::several(steer.doors.write, 3)?;
    let mut browser = Browser::open(&steer, &pictures(lab.folder())?)?;
    browser.ask(&["state", SERVED])?;
    browser.ask(&["contains", "picture", &old])?;
    browser.ask(&["alive"])?;
    browser.ask(&["shots", "well", SERVED])?;
    browser.ask(&["kept"])?;
    let audited = browser.ask(&["audit"])?;
    let new = film(lab, &steer, &mut browser)?;
    browser.ask(&["state", SERVED])?;
    browser.ask(&["contains", "changes", &format!("{old} to {new}")])?;
    browser.ask(&["shots", "after", SERVED])?;
    browser.ask(&["audit"])?;
    browser.ask(&["faults"])?;
    println!("axe: {audited}, no violation");
    Ok(())
}

/// Switches over and films the time without a primary. Returns the new primary.
fn film(lab: &Lab, steer: &Steer, browser: &mut Browser) -> Result<String> {
    let to = lab.replicas()?.first().context("no replica")?.name.clone();
    let order = lab.order_switchover(Some(&to))?;
    steer.wait_for("the write gate to be shut", Duration::from_secs(20), |steer| {
        steer.gates().open("write").is_empty()
    })?;
    // Without Patroni the switchover stands still, so that there is time for pictures.
    let names: Vec<String> = lab.members().iter().map(|member| member.name.clone()).collect();
    names.iter().try_for_each(|name| lab.freeze_patroni(name))?;
    let door = steer.doors.write;
    let waiting: Vec<_> =
        (0..WAITING).map(|_| std::thread::spawn(move || connected(door))).collect();
    let filmed = (|| {
        browser.ask(&["state", UNSERVED])?;
        browser.ask(&["contains", "state", "5 clients wait, the oldest for"])?;
        browser.ask(&["shots", "waiting", UNSERVED])
    })();
    names.iter().try_for_each(|name| lab.thaw_patroni(name))?;
    filmed?;
    for client in waiting {
        join(client)??;
    }
    // Patroni may have stood still for longer than its answer may take.
    let _ = order.wait();
    steer.wait_until_ready()?;
    Ok(lab.primary()?.name.clone())
}

fn connected(door: SocketAddr) -> Result<()> {
    let session = Session::connect(door, SUPERUSER, "postgres", HOLD);
    session.map(drop).context("a client on hold was not served")
}

/// The badge and the colours of a page that has lost its pgsteer, and its return.
pub fn a_page_without_its_pgsteer_is_not_green(lab: &Lab) -> Result<()> {
    let mut steer = Steer::start(lab, &Wanted::default())?;
    let mut browser = Browser::open(&steer, &pictures(lab.folder())?)?;
    browser.ask(&["alive"])?;
    steer.signal(Signal::STOP)?;
    let shown = browser.ask(&["stale"]);
    steer.signal(Signal::CONT)?;
    println!("{}", shown?);
    browser.ask(&["alive"])?;
    steer.signal(Signal::KILL)?;
    steer.wait(Duration::from_secs(5))?;
    browser.ask(&["stale"])?;
    drop(steer);
    let _steer = Steer::start(lab, &Wanted::default())?;
    browser.ask(&["alive"])?;
    Ok(())
}

/// The time from a gate's change to the pixels.
pub fn a_change_of_a_gate_is_painted_at_once(lab: &Lab) -> Result<()> {
    let mut steer = Steer::start(lab, &Wanted::default())?;
    let mut browser = Browser::open(&steer, &pictures(lab.folder())?)?;
    browser.ask(&["alive"])?;
    let mut delays = Vec::new();
    for change in 0..CHANGES {
        // No replica has this tag.
        let read = if change % 2 == 0 { "tags = { there = \"none\" }" } else { "" };
        browser.ask(&["watch"])?;
        let before = last_gate_event(&steer)?;
        steer.reload(lab, &Wanted { read, ..Wanted::default() })?;
        let painted: f64 = browser.ask(&["painted"])?.parse().context("no time")?;
        let changed = first_gate_event_after(&steer, before)?;
        delays.push(painted - changed);
        std::thread::sleep(Duration::from_millis(1_200));
    }
    delays.sort_by(f64::total_cmp);
    let (median, worst) = (delays[CHANGES / 2], delays[CHANGES - 1]);
    println!("from a gate's change to the pixels: median {median:.0} ms, worst {worst:.0} ms");
    let max = if is_measured() { PIXELS_MS_MAX } else { PIXELS_DEBUG_MS_MAX };
    ensure!(median <= max, "{delays:?}");
    Ok(())
}

/// The times of the gate events in milliseconds since 1970, oldest first.
fn gate_events(steer: &Steer) -> Result<Vec<f64>> {
    let status = steer.status()?;
    let events = status["clusters"][0]["events"].as_array().context("no events")?;
    let gates = events.iter().filter(|event| event["kind"] == "gate");
    gates.map(|event| millis(event["at"].as_str().unwrap_or_default())).collect()
}

fn last_gate_event(steer: &Steer) -> Result<f64> {
    gate_events(steer)?.last().copied().context("no gate event")
}

fn first_gate_event_after(steer: &Steer, before: f64) -> Result<f64> {
    // Between two requests the same time may differ by a millisecond.
    gate_events(steer)?.into_iter().find(|at| *at > before + 5.0).context("no new gate event")
}

fn millis(stamp: &str) -> Result<f64> {
    let at = humantime::parse_rfc3339(stamp).with_context(|| format!("no time: {stamp}"))?;
    Ok(at.duration_since(std::time::UNIX_EPOCH)?.as_secs_f64() * 1_000.0)
}

/// What a hundred open pages cost pgsteer.
pub fn a_hundred_open_pages_cost_little(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    std::thread::sleep(Duration::from_secs(2));
    let (idle_core, idle_kb) = cost(&steer)?;
    let mut readers = Vec::new();
    for _ in 0..PAGES {
        let mut stream = TcpStream::connect(steer.doors.http)?;
        stream.write_all(b"GET /api/v1/stream?view=page HTTP/1.1\r\nhost: x\r\n\r\n")?;
        readers.push(std::thread::spawn(move || read_until_the_end(stream)));
    }
    std::thread::sleep(Duration::from_secs(1));
    let (core, kb) = cost(&steer)?;
    drop(steer);
    let mut bytes = 0;
    for reader in readers {
        let read = join_plain(reader)?;
        ensure!(read > 10_000, "a reader got {read} bytes");
        bytes += read;
    }
    let (core, kb) = (core - idle_core, kb.saturating_sub(idle_kb));
    println!(
        "{PAGES} open pages: {:.1} % of a core, {:.1} MB of memory, {} kB sent to each",
        core * 100.0,
        kb_to_mb(kb),
        bytes / PAGES / 1_000
    );
    if is_measured() {
        ensure!(core <= CORE_MAX && kb <= MEMORY_KB_MAX, "{core} of a core, {kb} kB");
    }
    Ok(())
}

/// A page while clients come, wait for a member that there is not, and go, all the time.
pub fn a_page_answers_while_thousands_of_clients_storm_the_door(lab: &Lab) -> Result<()> {
    let mut steer = Steer::start(lab, &Wanted::default())?;
    // No replica has this tag.
    let read = "tags = { there = \"none\" }";
    steer.reload(lab, &Wanted { read, ..Wanted::default() })?;
    let door = steer.doors.read;
    let is_over = Arc::<AtomicBool>::default();
    let storm = {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || storm(door, &is_over))
    };
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < MEASURED {
        let asked = Instant::now();
        let page = steer.page("/")?;
        times.push(asked.elapsed());
        ensure!(page.contains("SERVICE"), "not the page: {page}");
        std::thread::sleep(Duration::from_millis(50));
    }
    is_over.store(true, Ordering::Relaxed);
    let clients = storm.join().map_err(|_| anyhow::anyhow!("the storm died"))??;
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{clients} clients in {} s, {STORM} at a time: a page in {median:.1?}, {worst:.1?} at most",
        MEASURED.as_secs()
    );
    ensure!(clients >= STORM, "only {clients} clients");
    let max = if is_measured() { PAGE_MAX } else { PAGE_DEBUG_MAX };
    ensure!(worst <= max, "{times:?}");
    Ok(())
}

/// Connects [`STORM`] clients as fast as it goes, ends them all, and begins again. Returns how many there were.
fn storm(door: SocketAddr, is_over: &AtomicBool) -> Result<usize> {
    let mut packet = BytesMut::new();
    frontend::startup_message([("user", "app"), ("database", "app")], &mut packet)?;
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut clients = Vec::new();
        while clients.len() < STORM && !is_over.load(Ordering::Relaxed) {
            let mut client = TcpStream::connect(door).context("a client cannot connect")?;
            // One that is refused has been closed by now.
            let _ = client.write_all(&packet);
            clients.push(client);
            count += 1;
        }
    }
    Ok(count)
}

fn read_until_the_end(mut stream: TcpStream) -> usize {
    let mut buffer = [0; 16 * 1024];
    let mut sum = 0;
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        sum += bytes;
    }
    sum
}

fn join_plain(reader: std::thread::JoinHandle<usize>) -> Result<usize> {
    reader.join().map_err(|_| anyhow::anyhow!("a reader died"))
}

fn kb_to_mb(kb: u64) -> f64 {
    Duration::from_millis(kb).as_secs_f64() * 1_000.0 / 1_024.0
}

/// The part of a core that pgsteer uses, and its memory in kB.
fn cost(steer: &Steer) -> Result<(f64, u64)> {
    let (before, began) = (cpu_ticks(steer)?, Instant::now());
    std::thread::sleep(MEASURED);
    let ticks = cpu_ticks(steer)? - before;
    // The kernel counts in hundredths of a second.
    let used = Duration::from_millis(ticks * 10);
    let core = used.as_secs_f64() / began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(process(steer).join("status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kb = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    Ok((core, kb))
}

fn cpu_ticks(steer: &Steer) -> Result<u64> {
    let stat = std::fs::read_to_string(process(steer).join("stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("an odd stat")?;
    let field = |number: usize| -> Result<u64> {
        Ok(fields.split(' ').nth(number).context("an odd stat")?.parse()?)
    };
    Ok(field(11)? + field(12)?)
}

fn process(steer: &Steer) -> std::path::PathBuf {
    Path::new("/proc").join(steer.pid().to_string())
}
