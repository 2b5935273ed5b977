//! `pgsteer lint` as it is typed: exit codes, and what HAProxy itself says of the good examples.

use std::io::Write;
use std::process::{Command, Stdio};

use pgsteer_core::lint::rule::{Rule, rules};

use crate::pgsteer::{complaint, file, run};

const CLEAN: &str = "defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 24d\n    timeout server 24d\n    option tcpka\n\
    listen primary\n    bind 127.0.0.1:5000\n    option httpchk OPTIONS /primary\n\
    tcp-request content reject unless { nbsrv(primary) eq 1 }\n\
    default-server inter 1s fall 2 on-marked-down shutdown-sessions\n\
    server n1 10.0.0.11:5432 check port 8008\n    server n2 10.0.0.12:5432 check port 8008\n";

fn exit_code(words: &[&str]) -> Option<i32> {
    run(&[&["lint"], words].concat()).status.code()
}

#[test]
fn the_exit_code_tells_how_bad_it_is() {
    let clean = file("lint-clean.cfg", CLEAN);
    let warned = file("lint-warned.cfg", &CLEAN.replace("inter 1s", "inter 5s"));
    let wrong = file("lint-wrong.cfg", &CLEAN.replace("on-marked-down shutdown-sessions", ""));
    let empty = file("lint-empty.cfg", "\n# nothing\n");
    assert_eq!(exit_code(&[&clean]), Some(0));
    assert_eq!(exit_code(&[&warned]), Some(0));
    assert_eq!(exit_code(&[&wrong]), Some(1));
    assert_eq!(exit_code(&[&wrong, &empty]), Some(2));
    assert_eq!(exit_code(&["/nonexistent"]), Some(2));
    assert_eq!(exit_code(&[env!("CARGO_BIN_EXE_pgsteer")]), Some(2), "no text");
    assert_eq!(exit_code(&["--kind", "pg-hba", &clean]), Some(2));
    assert_eq!(exit_code(&[]), Some(2));
    assert_eq!(exit_code(&["--list"]), Some(0));
    assert_eq!(exit_code(&["--explain", "slow-detection"]), Some(0));
    let output = run(&["lint", "--explain", "nothing"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        complaint(&output),
        "--explain: there is no rule `nothing`\n    help: --list names them\n1 error, nothing was looked at\n"
    );
}

#[test]
fn a_version_and_a_limit_are_heard() {
    let new = file("lint-new.cfg", &CLEAN.replace("fall 2", "fall 2 init-state down"));
    assert_eq!(exit_code(&[&new]), Some(1));
    assert_eq!(exit_code(&["--haproxy-version", "3.1", &new]), Some(0));
    let many = file("lint-many.cfg", &CLEAN.replace("check", "maxconn 200 check"));
    let told = |words: &[&str]| String::from_utf8_lossy(&run(words).stdout).into_owned();
    assert!(told(&["lint", "--max-connections", "100", &many]).contains("maxconn-beyond"));
    assert!(!told(&["lint", &many]).contains("maxconn-beyond"));
}

#[test]
fn stdin_is_a_file() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgsteer"))
        .args(["lint", "--format", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(CLEAN.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["files"][0]["name"], "(stdin)");
    assert_eq!(told["files"][0]["detection"].as_array().unwrap().len(), 2);
}

/// What examples take from the environment.
const VARIABLES: [(&str, &str); 3] =
    [("PATRONI_PORT", "8008"), ("HOST1", "10.0.0.11"), ("HOST2", "10.0.0.12")];

/// HAProxy's own opinion of the examples that begin so; none on a machine without it.
fn haproxy_says(of: &Rule, fence: &str) -> Option<Vec<bool>> {
    let examples = of.page.split(fence).skip(1).filter_map(|rest| rest.split("```").next());
    let verdict = |text: &str| {
        let path = file(&format!("lint-example-{}.cfg", of.id), text);
        match Command::new("haproxy").args(["-c", "-f", &path]).envs(VARIABLES).output() {
            Ok(output) => Some(output.status.success()),
            Err(error) => {
                println!("not looked at by haproxy: {error}");
                None
            }
        }
    };
    examples.map(verdict).collect()
}

/// Those with words that came after 2.6 say so in their first line, and are not looked at.
#[test]
fn haproxy_takes_the_good_examples() {
    for rule in rules() {
        let Some(verdicts) = haproxy_says(rule, "\n```haproxy good\n") else { return };
        assert!(verdicts.iter().all(|is_taken| *is_taken), "{}", rule.id);
    }
}

#[test]
fn haproxy_refuses_what_we_say_it_refuses() {
    let refused = |rule: &&Rule| rule.costs == "HAProxy refuses the file.";
    // What a version does not know, the one that is installed may know.
    for rule in rules().filter(refused).filter(|rule| rule.id != "word-not-in-version") {
        let Some(verdicts) = haproxy_says(rule, "\n```haproxy bad\n") else { return };
        assert!(!verdicts.is_empty() && !verdicts.contains(&true), "{}", rule.id);
    }
}
