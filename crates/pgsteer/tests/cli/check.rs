//! `pgsteer check`: which programs' answers it accepts.

use crate::fake_patroni::FakePatroni;
use crate::pgsteer::{Running, own_address, run};

/// The line of output, and the exit code.
fn asked(words: &[&str]) -> (String, Option<i32>) {
    let output = run(&[&["check"], words].concat());
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn check_accepts_a_pgsteer_and_rejects_a_patroni() {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
    let mut pgsteer = Running::start(ip, &["--patroni", &patroni.url()]);
    let http = format!("http://{ip}:7000");
    pgsteer.wait_for("a yes", |_| {
        let (stdout, code) = asked(&["write", "--http", &http]);
        (stdout == "yes: write: n1\n" && code == Some(0)).then_some(())
    });
    for of in ["write", "primary", "liveness"] {
        let (stdout, code) = asked(&[of, "--http", &patroni.url()]);
        assert_eq!(code, Some(2), "{of}: {stdout}");
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        assert!(stdout.starts_with("unknown: cannot ask"), "{stdout}");
        assert!(stdout.contains("a Patroni answers there, not a pgsteer"), "{stdout}");
    }
}
