//! A flood of refused clients: the program's log stays short, and contains no forged line.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::client::{Client, eventually};
use crate::fake_patroni::FakePatroni;
use crate::fake_server::{FakeServer, own_address};
use crate::wire;

/// A running pgsteer that is killed at the end.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_flood_of_refused_clients_fills_no_log_and_forges_no_line() {
    let forged = "2026-11-27T14:42:22Z  WARN gate of n1 is open \u{1b}[31m\u{202e}";
    // PostgreSQL repeats the client's user name in many of its errors.
    let server = FakeServer::new(move |talk| {
        let text = format!("not yet, user \"x\"\n{forged}");
        talk.send(&wire::fatal("57P03", &text));
    });
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, server.address, Vec::new());
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("flood.log");
    let child = Command::new(env!("CARGO_BIN_EXE_pgsteer"))
        .args(["run", "--patroni", &patroni.url(), "--http", "none", "--hold", "1"])
        .args(["--write", &format!("{ip}:5000"), "--read", &format!("{ip}:5001")])
        .stdin(Stdio::null())
        .stderr(File::create(&file).unwrap())
        .spawn()
        .unwrap();
    let _pgsteer = Killed(child);
    let log = || std::fs::read_to_string(&file).unwrap();
    let write = SocketAddr::new(ip, 5000);
    eventually("pgsteer listens", || TcpStream::connect(write).is_ok());
    eventually("the gate opens", || log().contains("write gate of n1 is open"));

    let crowd: Vec<Client> = (0..300).map(|_| Client::start(write)).collect();
    for mut client in crowd {
        assert_eq!(client.read_refusal().sqlstate, "57P03");
    }
    eventually("the refusals are counted", || log().contains("repeated="));
    let log = log();
    assert!(log.contains("client refused"), "{log}");
    assert!(
        log.contains("\\n2026-11-27T14:42:22Z") && !log.contains("\n2026-11-27T14:42:22Z"),
        "{log}"
    );
    assert!(!log.contains(['\u{1b}', '\u{202e}']), "{log}");
    // The line contains each client's waiting time, so some lines differ.
    assert!(log.lines().count() < 60, "{} lines: {log}", log.lines().count());
}
