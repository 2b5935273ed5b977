//! An upgrade whose new process cannot take over changes nothing, and one that can takes over.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use pgsteer::handover::VERSION;
use pgsteer::handover::channel::{self, Channel};
use pgsteer::handover::message::{self, Offer, ToNew, ToOld};
use pgsteer_core::time::Moment;
use rustix::process::{Pid, Signal, kill_process};

use crate::fake_patroni::FakePatroni;
use crate::pgsteer::{Running, command_of, complaint, own_address, run, scratch};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgsteer");

/// The new programs, the mode of their files, and the text that the log must contain.
const BROKEN: [(&str, u32, &str); 5] = [
    ("#!/bin/sh\nexit 3\n", 0o755, "the new process has ended (exit status: 3)"),
    ("#!/bin/sh\nexec sleep 100 <&-\n", 0o755, "does not know the handover"),
    ("#!/bin/sh\nexec sleep 100\n", 0o755, "does not answer within 10 s"),
    ("#!/bin/sh\nexit 0\n", 0o644, "Permission denied"),
    ("\x7fELF of another machine", 0o755, "Exec format error"),
];

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
    let program = scratch(&format!("upgrade-{ip}"));
    let _ = fs::remove_file(&program);
    symlink(PROGRAM, &program).unwrap();
    let words = ["--patroni", &patroni.url()];
    let mut running = Running::start_program(ip, &program, &words);
    running.wait_for("n1 open", |running| is_open(running).then_some(()));
    for (text, mode, expected) in BROKEN {
        fs::remove_file(&program).unwrap();
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        fails(&mut running, expected);
    }
    fs::remove_file(&program).unwrap();
    fails(&mut running, "No such file or directory");
    symlink(PROGRAM, &program).unwrap();
    running.upgrade();
    assert_eq!(running.ended(), Some(0), "{}", running.log());
    let log = running.log();
    assert!(log.contains("upgraded: the new process has taken over"), "{log}");
    end_successor(&log);
}

/// Asks for an upgrade, which has to fail with `expected`; the gate stays open.
fn fails(running: &mut Running, expected: &str) {
    let count = |running: &Running| running.log().matches("not upgraded").count();
    let before = count(running);
    running.upgrade();
    running.wait_for("the upgrade has failed", |running| (count(running) > before).then_some(()));
    let log = running.log();
    let line = log.lines().rfind(|line| line.contains("not upgraded")).unwrap();
    assert!(line.contains("this process goes on"), "{line}");
    assert!(line.contains(expected), "{line}");
    running.wait_for("the status shows why", |running| {
        let status = running.status()?;
        status["failed_upgrade"]["why"].as_str()?.contains(expected).then_some(())
    });
    assert!(is_open(running), "{log}");
}

fn is_open(running: &mut Running) -> bool {
    running.gate("write", "n1").is_some_and(|(gate, _)| gate == "open")
}

#[test]
fn the_command_reports_what_has_happened() {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
    let (program, other) = (scratch(&format!("old-{ip}")), scratch(&format!("new-{ip}")));
    let socket = scratch(&format!("{ip}.sock"));
    for file in [&program, &other] {
        let _ = fs::remove_file(file);
    }
    symlink(PROGRAM, &program).unwrap();
    let (socket, binary) = (socket.to_str().unwrap(), other.to_str().unwrap());
    let words = ["--patroni", &patroni.url(), "--control-socket", socket];
    let mut running = Running::start_program(ip, &program, &words);
    running.wait_for("n1 open", |running| is_open(running).then_some(()));
    let command = ["upgrade", "--socket", socket, "--binary", binary];

    let refused = run(&command);
    assert_eq!(refused.status.code(), Some(1));
    let why = complaint(&refused);
    assert!(why.contains("not upgraded, the running process goes on"), "{why}");
    assert!(why.contains("No such file or directory"), "{why}");
    assert!(is_open(&mut running), "{}", running.log());

    // No server listens, so the client is on hold.
    let waiting = start_client(&format!("{ip}:5000"));
    running.wait_for("a client on hold", |running| {
        let status = running.status()?;
        let services = status["clusters"][0]["services"].as_array()?;
        services.iter().any(|service| service["held"] == 1).then_some(())
    });
    symlink(PROGRAM, &other).unwrap();
    let upgraded = run(&command);
    let said = String::from_utf8_lossy(&upgraded.stdout).into_owned();
    assert_eq!(upgraded.status.code(), Some(0), "{}", complaint(&upgraded));
    assert!(said.contains("has taken over after"), "{said}");
    assert!(said.contains("with 1 client"), "{said}");
    drop(waiting);
    assert_eq!(running.ended(), Some(0), "{}", running.log());

    // The new process has the socket and starts its own file again.
    let again = run_when_it_listens(&command[..3]);
    assert_eq!(again.status.code(), Some(0), "{}", complaint(&again));
    // The old process answers first and ends its logins; then it writes its last line.
    let has_ended =
        |log: &str| log.matches("upgraded: the new process has taken over").count() == 2;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !has_ended(&running.log()) {
        assert!(Instant::now() < deadline, "{}", running.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    end_successor(&running.log());
}

#[test]
fn a_reload_in_the_middle_of_an_upgrade_reaches_the_new_process() {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
    let (file, slow) = (scratch(&format!("reload-{ip}.toml")), scratch(&format!("slow-{ip}")));
    let _ = fs::remove_file(&slow);
    symlink(PROGRAM, &slow).unwrap();
    let configure = |hold: u32| {
        let text = format!("[services.write]\nlisten = \"{ip}:5000\"\nhold_seconds = {hold}\n");
        fs::write(&file, text).unwrap();
    };
    configure(5);
    let words = ["--config", file.to_str().unwrap(), "--patroni", &patroni.url()];
    let mut running = Running::start_program(ip, &slow, &words);
    running.wait_for("n1 open", |running| is_open(running).then_some(()));
    fs::remove_file(&slow).unwrap();
    fs::write(&slow, format!("#!/bin/sh\nsleep 0.5\nexec {PROGRAM} \"$@\"\n")).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    running.upgrade();
    let has = |running: &Running, text: &str| running.log().contains(text);
    running.wait_for("a new process", |it| has(it, "started a new process").then_some(()));
    configure(7);
    running.reload();
    assert_eq!(running.ended(), Some(0), "{}", running.log());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !has(&running, "INFO reloaded") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    end_successor(&running.log());
    assert!(has(&running, "INFO reloaded"), "{}", running.log());
}

/// Repeats a command until the new process listens on the control socket.
fn run_when_it_listens(command: &[&str]) -> Output {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let output = run(command);
        let error = complaint(&output);
        let is_absent = error.contains("no socket") || error.contains("no process listens");
        if !is_absent || Instant::now() > deadline {
            return output;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the process that has taken over, which is no child of this test.
fn end_successor(log: &str) {
    let line = log.lines().rfind(|line| line.contains("upgraded: ")).unwrap();
    let pid = line.split("pid=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let began = Instant::now();
    while kill_process(pid, Signal::WINCH).is_ok() && Path::new("/proc").exists() {
        assert!(began.elapsed() < Duration::from_secs(10), "the successor does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A new process whose old one is the test.
struct New {
    child: Child,
    channel: Channel,
    /// The address of service `write`.
    write: String,
}

impl New {
    fn start(patroni: &str) -> New {
        let (ours, theirs) = channel::pair().unwrap();
        let ip = own_address();
        let log = fs::File::create(scratch(&format!("upgrade-{ip}.log"))).unwrap();
        let at = |port| format!("{ip}:{port}");
        let (write, read, http) = (at(5000), at(5001), at(7000));
        let doors = ["--write", &write, "--read", &read, "--http", &http];
        let words = [&["run", "--patroni", patroni][..], &doors].concat();
        let mut command = command_of(Path::new(PROGRAM), &words);
        command.env("PGSTEER_HANDOVER", "stdin").stdin(Stdio::from(theirs)).stderr(log);
        New { child: command.spawn().unwrap(), channel: Channel::new(ours).unwrap(), write }
    }

    /// Waits until it accepts clients.
    async fn accepts(&self) {
        loop {
            let packet = self.channel.receive().await.unwrap().expect("it has ended");
            match message::read(&packet).unwrap() {
                ToOld::Accepting => return,
                ToOld::Standing(_) | ToOld::Arrived { .. } => {}
                ToOld::Refusal { why } => panic!("{why}"),
            }
        }
    }

    /// Waits for the refusal, and for the end of the process.
    async fn refusal(mut self) -> String {
        let why = loop {
            let packet = self.channel.receive().await.unwrap().expect("a refusal");
            match message::read(&packet).unwrap() {
                ToOld::Refusal { why } => break why,
                ToOld::Standing(_) | ToOld::Arrived { .. } => {}
                ToOld::Accepting => panic!("it accepts"),
            }
        };
        assert_eq!(self.child.wait().unwrap().code(), Some(1));
        why
    }
}

/// A client that has sent its startup packet.
fn start_client(address: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    client.write_all(b"\0\0\0\x12\0\x03\0\0user\0app\0\0").unwrap();
    client
}

/// Returns true if the client of this address exceeds `sessions_max`.
fn exceeds_limit(address: &str) -> bool {
    let mut answer = Vec::new();
    match start_client(address).read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        _ => String::from_utf8_lossy(&answer).contains("(sessions_max)"),
    }
}

/// The old process stands still after it has given its sockets.
#[tokio::test]
async fn the_places_of_a_silent_old_process_are_free_after_five_seconds() {
    let patroni = FakePatroni::of_primary(own_address(), (own_address(), 5432).into(), Vec::new());
    let mut new = New::start(&patroni.url());
    message::send(&new.channel, &offer(VERSION), &[]).await.unwrap();
    let counts = [([192, 0, 2, 1].into(), 10_000)];
    for message in ToNew::connections(&counts) {
        message::send(&new.channel, &message, &[]).await.unwrap();
    }
    let listeners = ToNew::Listeners { addresses: Vec::new(), generation: 1 };
    message::send(&new.channel, &listeners, &[]).await.unwrap();
    new.accepts().await;
    let began = Instant::now();
    assert!(exceeds_limit(&new.write));
    while exceeds_limit(&new.write) {
        assert!(began.elapsed() < Duration::from_secs(20), "its places stay reserved");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    new.child.kill().unwrap();
    new.child.wait().unwrap();
}

fn offer(version: u32) -> ToNew {
    let (now, sent_at) = (Moment::START, SystemTime::now());
    let (addresses, orders) = (Vec::new(), None);
    ToNew::Offer(Offer { version, addresses, first_ticket: 0, now, sent_at, orders })
}

#[tokio::test]
async fn another_version_of_the_handover_is_refused() {
    let patroni = FakePatroni::of_primary(own_address(), (own_address(), 5432).into(), Vec::new());
    let new = New::start(&patroni.url());
    message::send(&new.channel, &offer(VERSION + 1), &[]).await.unwrap();
    let why = new.refusal().await;
    assert!(why.contains(&format!("version {}", VERSION + 1)), "{why}");
    assert!(why.contains("restart pgsteer instead"), "{why}");
}

#[tokio::test]
async fn messages_that_lie_are_refused() {
    let patroni = FakePatroni::of_primary(own_address(), (own_address(), 5432).into(), Vec::new());
    let garbage = New::start(&patroni.url());
    garbage.channel.send(b"{\"type\":\"offer\",\"version\":", &[]).await.unwrap();
    assert!(garbage.refusal().await.contains("cannot be read"));
    let without_sockets = New::start(&patroni.url());
    message::send(&without_sockets.channel, &offer(VERSION), &[]).await.unwrap();
    let addresses = vec!["127.0.0.1:5000".parse().unwrap()];
    let listeners = ToNew::Listeners { addresses, generation: 1 };
    message::send(&without_sockets.channel, &listeners, &[]).await.unwrap();
    let why = without_sockets.refusal().await;
    assert!(why.contains("0 of 1 sockets"), "{why}");
}
