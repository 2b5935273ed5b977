//! `pgsteer check`: whose answer counts.

use crate::fake_patroni::FakePatroni;
use crate::pgsteer::{Running, own_address, run};

/// The one line of the answer, and the exit code.
fn asked(words: &[&str]) -> (String, Option<i32>) {
    let output = run(&[&["check"], words].concat());
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn a_pgsteer_is_believed_and_a_patroni_is_not() {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
    let mut pgsteer = Running::start(ip, &["--patroni", &patroni.url()]);
    let http = format!("http://{ip}:7000");
    pgsteer.wait_for("a yes", |_| {
        let (said, code) = asked(&["write", "--http", &http]);
        (said == "yes: write: n1\n" && code == Some(0)).then_some(())
    });
    for of in ["write", "primary", "liveness"] {
        let (said, code) = asked(&[of, "--http", &patroni.url()]);
        assert_eq!(code, Some(2), "{of}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("unknown: cannot ask"), "{said}");
        assert!(said.contains("a Patroni answers there, not a pgsteer"), "{said}");
    }
}
