//! Patroni addresses where another program answers, or none: the gate of that member is shut, and
//! the others work.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fake_patroni::{FakePatroni, respond};
use crate::pgsteer::{Running, own_address};

/// The answers at the address of a member's Patroni, and the text that the reason must contain.
type Strange = (fn(&str, &mut TcpStream), &'static str);

const STRANGE: [Strange; 7] = [
    (|_, stream| respond(stream, "200 OK", "<html>It works!</html>"), "but not as Patroni does"),
    (|_, stream| respond(stream, "404 Not Found", "no such page"), "status 404"),
    (|_, stream| respond(stream, "200 OK", &" ".repeat(10_000_000)), "more than 1048576 bytes"),
    (
        |_, stream| respond(stream, "200 OK", "{\"state\": 7, \"role\": [], \"xlog\": null"),
        "not as Patroni",
    ),
    (|_, stream| drop(stream.write_all(b"220 mail.example.org ESMTP\r\n")), "not as Patroni"),
    (|_, _| std::thread::sleep(std::time::Duration::from_secs(20)), "no answer from"),
    (|_, _| {}, "closed"),
];

#[test]
fn each_faulty_patroni_shuts_only_its_own_member_with_a_reason() {
    let ip = own_address();
    let strange: Vec<FakePatroni> =
        STRANGE.iter().map(|(handler, _)| FakePatroni::new(own_address(), handler)).collect();
    let mut others: Vec<(String, SocketAddr)> =
        (2..).zip(&strange).map(|(number, fake)| (format!("n{number}"), fake.address)).collect();
    others.push(("absent".to_owned(), unused_address()));
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), others);
    let mut pgsteer = Running::start(ip, &["--patroni", &patroni.url()]);
    let reasons = STRANGE.iter().map(|(_, reason)| *reason).chain(["refused"]);
    let names = (2..2 + STRANGE.len()).map(|number| format!("n{number}"));
    for (name, reason) in names.chain(["absent".to_owned()]).zip(reasons) {
        pgsteer.wait_for(&format!("{name} shut, {reason}"), |pgsteer| {
            let (gate, text) = pgsteer.gate("read", &name)?;
            (gate == "shut" && text.contains(reason)).then_some(())
        });
    }
    pgsteer.wait_for("n1 open for writes", |pgsteer| {
        (pgsteer.gate("write", "n1")?.0 == "open").then_some(())
    });
    assert!(!pgsteer.log().contains("panicked"), "{}", pgsteer.log());
    assert_eq!(pgsteer.stop(), Some(0));
}

fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn one_good_address_among_faulty_ones_is_enough() {
    for (handler, _) in STRANGE {
        let ip = own_address();
        let strange = FakePatroni::new(ip, handler);
        let good = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
        let words = ["--patroni", &strange.url(), "--patroni", &good.url()];
        let mut pgsteer = Running::start(ip, &words);
        pgsteer.wait_for("n1 open for writes", |pgsteer| {
            (pgsteer.gate("write", "n1")?.0 == "open").then_some(())
        });
    }
}

#[test]
fn a_patroni_that_starts_later_is_found() {
    let ip = own_address();
    let is_there = Arc::new(AtomicBool::new(false));
    let real = FakePatroni::of_primary(own_address(), (ip, 5432).into(), Vec::new());
    let (shown, real) = (Arc::clone(&is_there), real.address);
    let seed = FakePatroni::new(ip, move |path, stream| match shown.load(Ordering::Relaxed) {
        true => pass_on(real, path, stream),
        false => respond(stream, "502 Bad Gateway", "not yet"),
    });
    let mut pgsteer = Running::start(ip, &["--patroni", &seed.url()]);
    pgsteer.wait_for("the message of status 502", |pgsteer| {
        pgsteer.log().contains("status 502").then_some(())
    });
    is_there.store(true, Ordering::Relaxed);
    pgsteer.wait_for("n1 open for writes", |pgsteer| {
        (pgsteer.gate("write", "n1")?.0 == "open").then_some(())
    });
}

fn pass_on(to: SocketAddr, path: &str, stream: &mut TcpStream) {
    let mut real = TcpStream::connect(to).unwrap();
    real.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    std::io::copy(&mut real, stream).unwrap();
}
