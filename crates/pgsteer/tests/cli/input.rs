//! Wrong input: everything that is wrong at once, exit code 2, and nothing is started.

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
fn all_wrong_flags_are_told_at_once() {
    let told =
        is_refused(&["run", "--patroni", "pg1:8008", "--hold", "-1", "--write", "0.0.0.0:x"]);
    insta::assert_snapshot!(told, @"
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
fn all_wrong_keys_of_a_file_are_told_at_once_with_their_lines() {
    let text = "[patroni]\nurl = 'http://pg1'\n\n[services.read]\nlisten = 5001\nrole = 'slave'\n\
                lag_bytes_max = 16\n";
    let name = file("wrong.toml", text);
    let told = is_refused(&["run", "--config", &name]).replace(&name, "wrong.toml");
    insta::assert_snapshot!(told, @r#"
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
fn a_file_that_is_no_toml_is_told_with_the_place() {
    let name = file("broken.toml", "[patroni\nurls = []\n");
    let told = is_refused(&["run", "--config", &name]).replace(&name, "broken.toml");
    insta::assert_snapshot!(told, @"
    broken.toml:1:9: not valid TOML: unclosed table, expected `]`
    broken.toml:2:1: urls: there is no key `urls` at the top of the file
        help: known here: cluster, patroni, members, etcd, check, services, http, agent, proxy
    2 errors, nothing was started
    ");
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let told = is_refused(&["run", "--config", "/nonexistent/pgsteer.toml"]);
    assert!(told.contains("/nonexistent/pgsteer.toml: cannot read the file"), "{told}");
}

#[test]
fn a_folder_instead_of_a_file_is_told() {
    let told = is_refused(&["run", "--config", "/tmp"]);
    assert!(told.contains("/tmp: cannot read the file"), "{told}");
}

#[test]
fn files_that_the_configuration_names_are_read_before_anything_is_started() {
    let told = is_refused(&[
        "run",
        "--patroni",
        "http://pg1",
        "--check-user",
        "pgcheck",
        "--check-password-file",
        "/nonexistent/password",
    ]);
    assert!(told.contains("/nonexistent/password: cannot be read"), "{told}");
}

#[test]
fn an_unknown_flag_and_no_words_at_all_are_refused() {
    assert!(is_refused(&["run", "--nonsense"]).contains("--nonsense"));
    assert!(is_refused(&["jump"]).contains("jump"));
    assert!(is_refused(&[]).contains("Usage: pgsteer"));
    assert!(is_refused(&["run"]).contains("no member is named"));
}

/// Whatever is wrong, no port is opened first.
#[test]
fn render_wants_no_password_of_the_checks_and_leads_nobody_to_another_flag() {
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
    // It would fail at the port, with another exit code, if it came so far.
    let _taken = TcpListener::bind((ip, 5000)).unwrap();
    let write = format!("{ip}:5000");
    let told = is_refused(&["run", "--patroni", "http://pg1", "--write", &write, "--hold", "x"]);
    assert!(told.contains("--hold") && !told.contains("listen"), "{told}");
}

fn check(words: &[&str]) -> Output {
    run(&[&["run", "--check-config"], words].concat())
}

#[test]
fn a_check_of_what_is_right_shows_what_it_means() {
    let name = file("right.toml", "[patroni]\nurls = ['http://pg1:8008']\n");
    let output = check(&["--config", &name, "--write", "127.0.0.1:6000"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("members from Patroni at http://pg1:8008"), "{told}");
    assert!(told.contains("write on 127.0.0.1:6000"), "{told}");
}

#[test]
fn a_check_of_what_is_wrong_says_so() {
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
