//! Wrong input: all errors at once, exit code 2, and nothing starts.

use std::net::TcpListener;
use std::process::Output;

use crate::pgsteer::{complaint, file, own_address, run};

fn is_refused(words: &[&str]) -> String {
    let output = run(words);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    complaint(&output)
}

#[test]
fn all_wrong_flags_are_reported_at_once() {
    let stderr =
        is_refused(&["run", "--patroni", "pg1:8008", "--hold", "-1", "--write", "0.0.0.0:x"]);
    insta::assert_snapshot!(stderr, @"
    --patroni: `pg1:8008` does not start with http:// or https://
        help: did you mean http://pg1:8008?
    --write: `x` is not a port
        help: a number from 1 to 65535
    --hold: `-1` is out of range
        help: from 0 to 3600 seconds
    3 errors, nothing was started
    ");
}

#[test]
fn all_wrong_keys_of_a_file_are_reported_at_once_with_their_lines() {
    let text = "[patroni]\nurl = 'http://pg1'\n\n[services.read]\nlisten = 5001\nrole = 'slave'\n\
                lag_bytes_max = 16\n";
    let name = file("wrong.toml", text);
    let stderr = is_refused(&["run", "--config", &name]).replace(&name, "wrong.toml");
    insta::assert_snapshot!(stderr, @r#"
    wrong.toml:1:2: patroni: `urls` is missing
        help: as in urls = ["http://10.0.0.11:8008"]
    wrong.toml:2:1: patroni.url: there is no key `url` in [patroni]
        help: did you mean `urls`?
    wrong.toml:6:8: services.read.role: `slave` is not one of the possible words
        help: did you mean `replica`?
    3 errors, nothing was started
    "#);
}

#[test]
fn an_invalid_toml_file_is_reported_with_line_and_column() {
    let name = file("broken.toml", "[patroni\nurls = []\n");
    let stderr = is_refused(&["run", "--config", &name]).replace(&name, "broken.toml");
    insta::assert_snapshot!(stderr, @"
    broken.toml:1:9: not valid TOML: unclosed table, expected `]`
    broken.toml:2:1: urls: there is no key `urls` at the top of the file
        help: the keys are cluster, patroni, etcd, members, check, services, http, agent, haproxy, proxy, control, vip
    2 errors, nothing was started
    ");
}

#[test]
fn a_missing_file_is_reported() {
    let stderr = is_refused(&["run", "--config", "/nonexistent/pgsteer.toml"]);
    assert!(stderr.contains("/nonexistent/pgsteer.toml: cannot read the file"), "{stderr}");
}

#[test]
fn a_folder_instead_of_a_file_is_reported() {
    let stderr = is_refused(&["run", "--config", "/tmp"]);
    assert!(stderr.contains("/tmp: cannot read the file"), "{stderr}");
}

#[test]
fn files_that_the_configuration_names_are_read_before_anything_is_started() {
    let stderr = is_refused(&[
        "run",
        "--patroni",
        "http://pg1",
        "--check-user",
        "pgcheck",
        "--check-password-file",
        "/nonexistent/password",
    ]);
    assert!(stderr.contains("/nonexistent/password: cannot be read"), "{stderr}");
}

#[test]
fn an_unknown_flag_and_an_empty_command_line_are_refused() {
    assert!(is_refused(&["run", "--nonsense"]).contains("--nonsense"));
    assert!(is_refused(&["jump"]).contains("jump"));
    assert!(is_refused(&[]).contains("Usage: pgsteer"));
    assert!(is_refused(&["run"]).contains("neither Patroni nor a list of members is configured"));
}

/// No port is opened before the input is checked.
#[test]
fn render_refuses_the_password_flag_of_the_check_login() {
    let words = ["render", "haproxy", "--member", "n1=pg1", "--check-password-file", "/etc/x"];
    assert_eq!(
        is_refused(&words),
        "--check-password-file: no file that is rendered has the password of the checks\n    \
         help: leave it out\n1 error, nothing was written\n"
    );
}

#[test]
fn wrong_input_opens_no_port() {
    let ip = own_address();
    // With an open port check it would fail here with another exit code.
    let _taken = TcpListener::bind((ip, 5000)).unwrap();
    let write = format!("{ip}:5000");
    let stderr = is_refused(&["run", "--patroni", "http://pg1", "--write", &write, "--hold", "x"]);
    assert!(stderr.contains("--hold") && !stderr.contains("listen"), "{stderr}");
}

fn check(words: &[&str]) -> Output {
    run(&[&["run", "--check-config"], words].concat())
}

#[test]
fn a_check_of_a_right_configuration_shows_its_meaning() {
    let name = file("right.toml", "[patroni]\nurls = ['http://pg1:8008']\n");
    let output = check(&["--config", &name, "--write", "127.0.0.1:6000"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stderr = String::from_utf8(output.stdout).unwrap();
    assert!(stderr.contains("members from Patroni at http://pg1:8008"), "{stderr}");
    assert!(stderr.contains("write on 127.0.0.1:6000"), "{stderr}");
}

#[test]
fn a_check_of_a_wrong_configuration_fails() {
    let name = file("checked.toml", "[patroni]\nurls = []\n");
    let output = check(&["--config", &name]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(complaint(&output).contains("patroni.urls"), "{output:?}");
}

#[test]
fn a_check_opens_no_port() {
    let ip = own_address();
    let _taken = TcpListener::bind((ip, 5000)).unwrap();
    let output = check(&["--patroni", "http://pg1", "--write", &format!("{ip}:5000")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
