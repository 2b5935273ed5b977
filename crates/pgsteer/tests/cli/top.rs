//! `pgsteer top` in a terminal, and `pgsteer status` of several pgsteers.

use std::io::Read;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fake_patroni::FakePatroni;
use crate::pgsteer::{Running, own_address, run, scratch};
use crate::terminal::{Terminal, begin};

/// Enters and leaves the alternate screen, and shows the cursor.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// A running pgsteer whose write gate is open, with its Patroni and the URL of its pages.
fn cluster() -> (FakePatroni, Running, String) {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
    let mut pgsteer = Running::start(ip, &["--patroni", &patroni.url()]);
    let open =
        |pgsteer: &mut Running| pgsteer.gate("write", "n1").filter(|(gate, _)| gate == "open");
    pgsteer.wait_for("an open write gate", |pgsteer| open(pgsteer).map(drop));
    (patroni, pgsteer, format!("http://{ip}:7000"))
}

fn assert_restored(terminal: &Terminal) {
    let written = terminal.written();
    let after =
        |text: &str| written.rfind(text).unwrap_or_else(|| panic!("no {text:?}: {written:?}"));
    assert!(after(LEAVE) > after(ENTER), "{written:?}");
    assert!(after(SHOW_CURSOR) > after(ENTER), "{written:?}");
    assert!(terminal.is_in_line_mode(), "the terminal is still in raw mode");
}

#[test]
fn top_shows_the_cluster_follows_keys_and_restores_the_terminal() {
    let (_patroni, _pgsteer, url) = cluster();
    let mut terminal = Terminal::start(&["top", &url]);
    terminal.wait_for("live");
    terminal.wait_for("n1");
    assert!(!terminal.is_in_line_mode(), "keys must arrive one by one");
    terminal.press("?", "KEYS");
    terminal.press("\u{1b}", "SERVICE");
    terminal.press("\r", "member n1, primary, timeline 1");
    terminal.press("\r", "SERVICE");
    terminal.press("e", "esc back");
    terminal.press("e", "SERVICE");
    terminal.press("/zz", "filter: zz_");
    terminal.press("\r", "/ filter: zz");
    terminal.press("s", "s sort: role");
    terminal.resize(40, 12);
    terminal.wait_until("keys in line 12", |lines| lines[11].starts_with("q quit"));
    terminal.send("q");
    assert_eq!(terminal.end().code(), Some(0));
    assert_restored(&terminal);
}

#[test]
fn top_lists_the_sessions_of_this_machine_over_the_control_socket() {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, (ip, 5432).into(), Vec::new());
    let socket = scratch(&format!("top-{ip}.sock"));
    let socket = socket.to_str().unwrap();
    let mut pgsteer =
        Running::start(ip, &["--patroni", &patroni.url(), "--control-socket", socket]);
    pgsteer.wait_for("the member", |pgsteer| pgsteer.gate("write", "n1").map(drop));
    let url = format!("http://{ip}:7000");
    let mut terminal = Terminal::start(&["top", &url, "--socket", socket]);
    terminal.wait_for("live");
    terminal.press("S", "0 sessions at n1");
    assert_eq!(pgsteer.stop(), Some(0));
    terminal.wait_for("not known");
    terminal.send("q");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn top_keeps_the_last_answer_while_pgsteer_does_not_answer() {
    let (_patroni, pgsteer, url) = cluster();
    let mut terminal = Terminal::start(&["top", &url, "--no-color"]);
    terminal.wait_for("live");
    assert_eq!(pgsteer.stop(), Some(0));
    terminal.wait_for("no answer");
    terminal.wait_for("refused");
    terminal.press("\r", "member n1, primary");
    assert!(!terminal.written().contains("\u{1b}[38;5;"), "{:?}", terminal.written());
    terminal.send("\u{3}");
    assert_eq!(terminal.end().code(), Some(0));
    assert_restored(&terminal);
}

#[test]
fn top_restores_the_terminal_at_sigterm() {
    let mut terminal = Terminal::start(&["top", "http://127.0.0.1:9"]);
    terminal.wait_for("no answer");
    let pid = Pid::from_raw(i32::try_from(terminal.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(terminal.end().code(), Some(0));
    assert_restored(&terminal);
}

#[test]
fn top_ends_when_its_terminal_is_closed() {
    let (mut child, mut screen, line) = begin(&["top", "http://127.0.0.1:9"]);
    drop(line);
    // It has drawn its first page.
    assert!(screen.read(&mut [0; 4_096]).unwrap() > 0);
    drop(screen);
    let status = child.wait().unwrap();
    assert!(status.code().is_some(), "{status}: no crash");
}

#[test]
fn top_refuses_to_start_without_a_terminal() {
    let output = run(&["top"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    for part in ["standard output is not a terminal", "pgsteer status"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn status_of_several_pgsteers_is_a_table_and_exits_with_the_worst() {
    let (_patroni, _pgsteer, url) = cluster();
    let words = ["status", &url, "http://127.0.0.1:9"];
    let output = run(&words);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{stdout}");
    assert!(lines[0].starts_with("URL") && lines[1].starts_with(&url), "{stdout}");
    assert!(lines[1].contains("n1") && lines[2].contains("cannot ask"), "{stdout}");

    let output = run(&[&words[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list[0]["status"]["clusters"][0]["members"][0]["name"], "n1");
    assert!(list[1]["error"].as_str().unwrap().contains("refused"), "{list}");
}
