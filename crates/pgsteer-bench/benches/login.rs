//! How long pgsteer reads the first packet of a client, and the answers of its server.

#![allow(clippy::unwrap_used)]
#![allow(missing_docs)]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use pgsteer_wire::login::{LoginWatch, Progress};
use pgsteer_wire::startup::{First, first};
use postgres_protocol::message::frontend;

/// The packet that psql sends.
fn startup_packet() -> BytesMut {
    let parameters = [
        ("user", "app"),
        ("database", "shop"),
        ("application_name", "psql"),
        ("client_encoding", "UTF8"),
    ];
    let mut packet = BytesMut::new();
    frontend::startup_message(parameters, &mut packet).unwrap();
    packet
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[kind], &len.to_be_bytes()[..], body].concat()
}

/// What PostgreSQL 16 sends once it has accepted a client.
fn welcome() -> Vec<u8> {
    let mut bytes = message(b'R', &[0, 0, 0, 0]);
    for (name, value) in [
        ("in_hot_standby", "off"),
        ("integer_datetimes", "on"),
        ("TimeZone", "Etc/UTC"),
        ("IntervalStyle", "postgres"),
        ("search_path", "\"$user\", public"),
        ("is_superuser", "off"),
        ("application_name", "psql"),
        ("default_transaction_read_only", "off"),
        ("scram_iterations", "4096"),
        ("DateStyle", "ISO, MDY"),
        ("standard_conforming_strings", "on"),
        ("session_authorization", "app"),
        ("client_encoding", "UTF8"),
        ("server_version", "16.4"),
        ("server_encoding", "UTF8"),
    ] {
        bytes.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    bytes.extend(message(b'K', &[0, 0, 16, 1, 1, 2, 3, 4]));
    bytes.extend(message(b'Z', b"I"));
    bytes
}

fn logins(criterion: &mut Criterion) {
    let packet = startup_packet();
    criterion.bench_function("startup packet", |bencher| {
        bencher.iter(|| {
            let read = first(black_box(&packet));
            assert_eq!(read, Ok(First::Startup { len: packet.len() }));
        });
    });
    let welcome = welcome();
    criterion.bench_function("login without a password", |bencher| {
        bencher.iter(|| {
            let progress = LoginWatch::default().take(black_box(&welcome));
            assert!(matches!(progress, Ok(Progress::Ready(_))));
        });
    });
    criterion.bench_function("login without a password, one byte at a time", |bencher| {
        bencher.iter(|| {
            let mut watch = LoginWatch::default();
            let last = welcome.iter().map(|byte| watch.take(&[*byte])).last();
            assert!(matches!(last, Some(Ok(Progress::Ready(_)))));
        });
    });
}

criterion_group!(benches, logins);
criterion_main!(benches);
