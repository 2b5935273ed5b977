//! A taken port: the error names the port and the service that needs it. A port of the service manager: it is used.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fake_patroni::FakePatroni;
use crate::pgsteer::{Running, command_of, complaint, own_address, run};

#[test]
fn all_taken_ports_are_reported_with_their_services() {
    let ip = own_address();
    let _taken = [5000, 5001].map(|port| TcpListener::bind((ip, port)).unwrap());
    let (write, read, http) = (format!("{ip}:5000"), format!("{ip}:5001"), format!("{ip}:7000"));
    let output = run(&[
        "run",
        "--patroni",
        "http://127.0.0.1:9",
        "--write",
        &write,
        "--read",
        &read,
        "--http",
        &http,
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = complaint(&output);
    assert!(stderr.contains(&format!("service write cannot listen on {write}")), "{stderr}");
    assert!(stderr.contains(&format!("service read cannot listen on {read}")), "{stderr}");
    assert!(stderr.contains("ss -ltnp 'sport = :5000'"), "{stderr}");
}

#[test]
fn a_taken_port_of_the_status_pages_is_reported() {
    let ip = own_address();
    let _taken = TcpListener::bind((ip, 7000)).unwrap();
    let (write, read, http) = (format!("{ip}:5000"), format!("{ip}:5001"), format!("{ip}:7000"));
    let output = run(&[
        "run",
        "--patroni",
        "http://127.0.0.1:9",
        "--write",
        &write,
        "--read",
        &read,
        "--http",
        &http,
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = complaint(&output);
    assert!(stderr.contains(&http) && stderr.contains("status pages"), "{stderr}");
}

#[test]
fn an_address_of_another_machine_is_reported() {
    // An address of a block for documentation.
    let output = run(&["run", "--patroni", "http://127.0.0.1:9", "--write", "192.0.2.1:5000"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = complaint(&output);
    assert!(stderr.contains("service write cannot listen on 192.0.2.1:5000"), "{stderr}");
    assert!(stderr.contains("it is not an address of this machine"), "{stderr}");
}

#[test]
fn every_listener_is_logged_at_the_start() {
    let ip = own_address();
    let agent = format!("{ip}:5555");
    let mut pgsteer = Running::start(ip, &["--patroni", "http://127.0.0.1:9", "--agent", &agent]);
    for line in [
        format!("agent-checks are answered on {agent}"),
        format!("service write listens on {ip}:5000"),
        format!("service read listens on {ip}:5001"),
        format!("status pages are on http://{ip}:7000"),
    ] {
        pgsteer.wait_for(&line, |pgsteer| pgsteer.log().contains(&line).then_some(()));
    }
}

/// With SO_REUSEPORT the second one would silently take half of the clients.
#[test]
fn a_second_pgsteer_does_not_share_the_ports_of_the_first() {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
    let running = Running::start(ip, &["--patroni", &patroni.url()]);
    let write = format!("{ip}:5000");
    let output = run(&["run", "--patroni", &patroni.url(), "--write", &write]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(running.stop(), Some(0));
}

/// Starts its arguments with the standard input and output as the sockets of the service manager.
const ACTIVATED: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; \
                         LISTEN_FDS=2 LISTEN_PID=$$ exec \"$@\"";

#[test]
fn sockets_of_the_service_manager_are_used() {
    let ip = own_address();
    let [http, other] = [7000, 7999].map(|port| TcpListener::bind((ip, port)).unwrap());
    // This client connects before there is a pgsteer.
    let mut early = TcpStream::connect(http.local_addr().unwrap()).unwrap();
    early.write_all(b"GET /status.txt HTTP/1.0\r\n\r\n").unwrap();
    let at = |port| SocketAddr::new(ip, port).to_string();
    let (write, read, pages) = (at(5000), at(5001), at(7000));
    let program = ["-c", ACTIVATED, "sh", env!("CARGO_BIN_EXE_pgsteer"), "run"];
    let words = ["--patroni", "http://127.0.0.1:9", "--write", &write, "--read", &read];
    let words = [&program[..], &words, &["--http", &pages]].concat();
    let mut command = command_of(Path::new("/bin/sh"), &words);
    let log = std::io::pipe().unwrap();
    command.stdin(OwnedFd::from(http)).stdout(OwnedFd::from(other)).stderr(log.1);
    let mut child = command.spawn().unwrap();
    drop(command);
    early.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("pgsteer"), "{answer}");
    assert!(TcpStream::connect(write).is_ok(), "it binds the others");
    // It is closed at the end of the start, which may be after the first answer.
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((ip, 7999)).is_ok() {
        assert!(Instant::now() < deadline, "a socket that it does not use is closed");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut text = String::new();
    let mut log = log.0;
    log.read_to_string(&mut text).unwrap();
    assert!(text.contains(&format!("listens on {ip}:7999")), "{text}");
}
