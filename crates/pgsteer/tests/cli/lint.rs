//! `pgsteer lint` from the command line: exit codes, and HAProxy's own check of the good examples.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use pgsteer_files::lint::location::Severity;
use pgsteer_files::lint::rule::Rule;
use pgsteer_files::lint::rules::rules;
use pgsteer_files::lint::{Kind, Options, lint};

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
fn the_exit_code_shows_the_severity() {
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
fn the_haproxy_version_and_a_limit_are_used() {
    let new = file("lint-new.cfg", &CLEAN.replace("fall 2", "fall 2 init-state down"));
    assert_eq!(exit_code(&[&new]), Some(1));
    assert_eq!(exit_code(&["--haproxy-version", "3.1", &new]), Some(0));
    let many = file("lint-many.cfg", &CLEAN.replace("check", "maxconn 200 check"));
    let output = |words: &[&str]| String::from_utf8_lossy(&run(words).stdout).into_owned();
    assert!(output(&["lint", "--max-connections", "100", &many]).contains("maxconn-beyond"));
    assert!(!output(&["lint", &many]).contains("maxconn-beyond"));
}

#[test]
fn the_postgresql_version_is_used() {
    let hba = file("lint-oauth_pg_hba.conf", "host all all 10.0.0.0/8 oauth issuer=x scope=y\n");
    assert_eq!(exit_code(&[&hba]), Some(0));
    assert_eq!(exit_code(&["--postgres-version", "17.2", &hba]), Some(1));
    assert_eq!(exit_code(&["--postgres-version", "18", &hba]), Some(0));
    assert_eq!(exit_code(&["--postgres-version", "eighteen", &hba]), Some(2));
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
    let output: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output["files"][0]["name"], "(stdin)");
    assert_eq!(output["files"][0]["detection"].as_array().unwrap().len(), 2);
}

/// The variables that the examples use.
const VARIABLES: [(&str, &str); 3] =
    [("PATRONI_PORT", "8008"), ("HOST1", "10.0.0.11"), ("HOST2", "10.0.0.12")];

/// HAProxy's own check of the examples after this fence; none on a machine without HAProxy.
fn haproxy_says(of: &Rule, fence: &str) -> Option<Vec<bool>> {
    let examples = of.page.split(fence).skip(1).filter_map(|rest| rest.split("```").next());
    let verdict = |text: &str| {
        // Good and bad examples are checked at the same time.
        let kind = fence.trim().replace(['`', ' '], "");
        let path = file(&format!("lint-example-{kind}-{}.cfg", of.id), text);
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

/// Examples with keywords newer than 2.6 have a note in their first line, and are skipped.
#[test]
fn haproxy_accepts_the_good_examples() {
    for rule in rules() {
        let Some(verdicts) = haproxy_says(rule, "\n```haproxy good\n") else { return };
        assert!(verdicts.iter().all(|is_taken| *is_taken), "{}", rule.id);
    }
}

#[test]
fn haproxy_refuses_the_bad_examples_of_rules_that_claim_it() {
    let refused = |rule: &&Rule| rule.costs == "HAProxy refuses the file.";
    // The installed version may know a keyword that an older version does not.
    for rule in rules().filter(refused).filter(|rule| rule.id != "word-not-in-version") {
        let Some(verdicts) = haproxy_says(rule, "\n```haproxy bad\n") else { return };
        assert!(!verdicts.is_empty() && !verdicts.contains(&true), "{}", rule.id);
    }
}

/// The files in a folder of lint's tests, without the expected findings beside them.
fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = format!("{}/../pgsteer-files/tests/lint/{folder}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "cfg")).collect();
    cases.sort();
    cases
}

/// Returns whether HAProxy accepts a file; none on a machine without HAProxy 2.6, for which the
/// cases are written.
fn is_taken(path: &str) -> Option<bool> {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    let is_there = *IS_THERE.get_or_init(|| {
        let version = Command::new("haproxy").arg("-v").output();
        version.is_ok_and(|it| String::from_utf8_lossy(&it.stdout).contains("version 2.6."))
    });
    if !is_there {
        println!("not looked at: there is no HAProxy 2.6");
        return None;
    }
    let output = Command::new("haproxy").args(["-c", "-f", path]).envs(VARIABLES).output().ok()?;
    Some(output.status.success())
}

/// A file that HAProxy 2.6 refuses has an error in lint, and HAProxy accepts the files of real
/// users.
#[test]
fn a_file_that_haproxy_refuses_has_an_error() {
    let mut looked_at = 0;
    for path in cases("corpus").into_iter().chain(cases("faults")) {
        let (text, path) = (std::fs::read_to_string(&path).unwrap(), path.to_str().unwrap());
        if text.starts_with("# haproxy-version") {
            continue;
        }
        let Some(is_taken) = is_taken(path) else { return };
        let has_errors = exit_code(&[path]) == Some(1);
        assert!(is_taken || has_errors, "{path}: HAProxy refuses it, lint has no error");
        if path.contains("/corpus/") {
            let is_refused = text.starts_with("# refused");
            assert_eq!(is_taken, !is_refused, "{path}");
        }
        looked_at += 1;
    }
    assert!(looked_at >= 60, "{looked_at}");
}

/// Same check for the bad examples of all pages, for all kinds of rules.
#[test]
fn a_bad_example_that_haproxy_refuses_has_an_error() {
    for rule in rules() {
        let examples = rule.page.split("\n```haproxy bad\n").skip(1);
        for (at, text) in examples.filter_map(|rest| rest.split("```").next()).enumerate() {
            let path = file(&format!("lint-bad-{}-{at}.cfg", rule.id), text);
            let Some(is_taken) = is_taken(&path) else { return };
            // Exit code 2 means that the file has no HAProxy section.
            let has_errors = exit_code(&[&path]) != Some(0);
            assert!(is_taken || has_errors, "{}: {text}", rule.id);
        }
    }
}

/// A configuration with one of the lines in `haproxy-lines.txt`.
fn with_line(place: &str, lines: &str) -> String {
    let at = |name: &str, default: &str| match place == name {
        true => lines.replace(" | ", "\n"),
        false => default.to_owned(),
    };
    format!(
        "global\ninsecure-fork-wanted\n{}\ndefaults\nmode tcp\ntimeout connect 1s\ntimeout client 24d\n\
         timeout server 24d\noption tcpka\nfrontend f\nbind *:5999\ndefault_backend b\nbackend b\n\
         server x 10.0.0.9:80\nlisten primary\nbind *:5000\noption httpchk GET /primary\n\
         http-check expect status 200\n\
         default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n{}\n\
         server n1 10.0.0.1:5432 check port 8008\nserver n2 {}\n{}\n",
        at("global", "maxconn 1000"),
        at("listen", ""),
        at("server", "10.0.0.2:5432 check port 8008"),
        at("extra", ""),
    )
}

/// What HAProxy 2.6 refuses is an error in lint, and what it takes is none.
#[test]
fn a_line_that_haproxy_refuses_is_an_error() {
    let rows = include_str!("haproxy-lines.txt").lines().filter(|row| !row.starts_with('#'));
    let rows: Vec<&str> = rows.collect();
    let wrong = |(at, rows): (usize, &[&str])| -> Vec<String> {
        rows.iter()
            .filter_map(|row| judged_otherwise(row, &format!("lint-line-{at}.cfg")))
            .collect()
    };
    // HAProxy's start takes most of the time.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let parts = rows.chunks(rows.len().div_ceil(4)).enumerate();
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || wrong(part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Judges `VERDICT PLACE: LINE`, and returns it if lint or HAProxy judge it in another way.
fn judged_otherwise(row: &str, name: &str) -> Option<String> {
    let (verdict, rest) = row.split_once(' ').unwrap();
    let (place, line) = rest.split_once(": ").unwrap();
    let text = with_line(place, line);
    let report = lint(Kind::Haproxy, &text, &Options::default()).unwrap();
    let has_errors = report.count(Severity::Error) > 0;
    let haproxy = is_taken(&file(name, &text));
    let is_wrong = has_errors != (verdict == "refused") || haproxy == Some(has_errors);
    is_wrong.then(|| format!("{row}: errors {has_errors}, HAProxy takes it {haproxy:?}"))
}

#[test]
fn several_files_are_one_configuration() {
    let folder = std::env::temp_dir().join(format!("pgsteer-lint-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("sub.cfg")).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (defaults, listen) = CLEAN.split_at(CLEAN.find("listen").unwrap());
    let listen = listen.replace("inter 1s", "");
    std::fs::write(path("00-main.cfg"), format!("global\n{defaults} default-server inter 9s\n"))
        .unwrap();
    std::fs::write(path("10-pg.cfg"), &listen).unwrap();
    std::fs::write(path("ignored.conf"), "listen x\n timeout client 99d\n").unwrap();
    std::fs::write(path(".hidden.cfg"), "listen x\n timeout client 99d\n").unwrap();
    let output = |names: &[&str]| {
        let output = run(&[&["lint"], names].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // `inter 9s` of the first file applies in the second one.
    let (main, pg) = (path("00-main.cfg"), path("10-pg.cfg"));
    let slow = "10-pg.cfg:6:1: warning[slow-detection]";
    assert!(!output(&[&pg]).contains("slow-detection"));
    assert!(output(&[&main, &pg]).contains(slow), "{}", output(&[&main, &pg]));
    let of_folder = output(&[folder.to_str().unwrap()]);
    assert!(of_folder.contains(slow) && !of_folder.contains("99d"), "{of_folder}");
    // A second `global` belongs to another machine.
    let other = path("other");
    std::fs::write(&other, format!("global\n{CLEAN}")).unwrap();
    let apart = output(&["--kind", "haproxy", &other, &main, &other]);
    assert!(!apart.contains("name-twice"), "{apart}");
    let joined = output(&[&main, &pg, &pg]);
    assert!(joined.contains("name-twice") && joined.contains("line 1 of "), "{joined}");
    std::fs::write(path("20-piece.cfg"), " server n9 10.0.0.19:5432 check\n").unwrap();
    assert!(output(&[folder.to_str().unwrap()]).contains("before the first section"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(exit_code(&[folder.to_str().unwrap()]), Some(2));
}
