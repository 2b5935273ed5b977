//! A port that is taken: its number, and who needs it.

use std::net::TcpListener;

use crate::fake_patroni::FakePatroni;
use crate::pgsteer::{Running, complaint, own_address, run};

#[test]
fn all_ports_that_are_taken_are_told_with_who_needs_them() {
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
    let told = complaint(&output);
    assert!(told.contains(&format!("service write cannot listen on {write}")), "{told}");
    assert!(told.contains(&format!("service read cannot listen on {read}")), "{told}");
    assert!(told.contains("ss -ltnp 'sport = :5000'"), "{told}");
}

#[test]
fn a_taken_port_of_the_status_pages_is_told() {
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
    let told = complaint(&output);
    assert!(told.contains(&http) && told.contains("status pages"), "{told}");
}

#[test]
fn an_address_of_another_machine_is_told() {
    // From a block that is for documentation only.
    let output = run(&["run", "--patroni", "http://127.0.0.1:9", "--write", "192.0.2.1:5000"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = complaint(&output);
    assert!(told.contains("service write cannot listen on 192.0.2.1:5000"), "{told}");
    assert!(told.contains("it is not an address of this machine"), "{told}");
}

#[test]
fn every_door_is_named_at_the_start() {
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

/// With SO_REUSEPORT it would take half of the clients in silence.
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
