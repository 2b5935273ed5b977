//! The measured programs, the machine, and its load.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use pgsteer_lab::Lab;
use pgsteer_lab::which;

/// One line each, for the head of a section.
pub fn lines(lab: &Lab, pgsteer: &Path) -> String {
    let postgres = first_line(&lab.postgres_bin().join("postgres"), "--version");
    let haproxy = which("haproxy").map_or_else(String::new, |path| first_line(&path, "-v"));
    let haproxy = haproxy.split(" - ").next().unwrap_or_default().to_owned();
    [
        format!("- {}, release build", first_line(pgsteer, "--version")),
        format!("- {}", postgres.replace("postgres (PostgreSQL)", "PostgreSQL")),
        format!("- Patroni {}, etcd, network of the members: {}", patroni(lab), network(lab)),
        format!("- {}", haproxy.replace("HAProxy version", "HAProxy")),
        format!("- Linux {}, {}", kernel(), machine()),
    ]
    .join("\n")
}

fn first_line(program: &Path, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok().and_then(|text| Some(text.lines().next()?.to_owned())).unwrap_or_default()
}

fn patroni(lab: &Lab) -> String {
    let answer = lab.members().iter().find_map(|member| lab.patroni_status(&member.name).ok());
    let version = answer.and_then(|answer| {
        Some(answer.pointer("/patroni/version").and_then(Value::as_str)?.to_owned())
    });
    version.unwrap_or_else(|| "of unknown version".to_owned())
}

fn network(lab: &Lab) -> String {
    lab.options().network.to_string()
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    format!("{cores} cores, load average {load} after the run")
}
