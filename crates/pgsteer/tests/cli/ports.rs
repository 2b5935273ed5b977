//! A taken port: the error names the port and the service that needs it.

use std::net::TcpListener;

use crate::fake_patroni::FakePatroni;
use crate::pgsteer::{Running, complaint, own_address, run};

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
