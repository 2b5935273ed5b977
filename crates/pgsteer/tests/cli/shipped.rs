//! The files in `dist/`: systemd accepts the units, and the program accepts every option in them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNITS: [&str; 2] = ["pgsteer.service", "pgsteer-agent.service"];

/// `systemd-analyze security` rates from 0 to 10; this is in tenths.
const EXPOSURE_MAX: &str = "20";

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(dist().join(name)).unwrap()
}

/// systemd's own check; none on a machine without systemd.
fn systemd_analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("not looked at by systemd-analyze: {error}");
            None
        }
    }
}

#[test]
fn the_units_are_hardened() {
    for unit in UNITS {
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let arguments = ["security", "--offline=yes", "--no-pager", &threshold];
        let Some(output) = systemd_analyze(&arguments, &dist().join(unit)) else { return };
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{unit}: {printed}");
        println!("{}", printed.lines().last().unwrap_or_default());
    }
}

/// Another program stands in for the one that is not installed yet.
#[test]
fn systemd_accepts_the_units() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("units");
    std::fs::create_dir_all(&folder).unwrap();
    for unit in UNITS {
        let path = folder.join(unit);
        let text = read(unit).replace("/usr/bin/pgsteer", env!("CARGO_BIN_EXE_pgsteer"));
        std::fs::write(&path, text).unwrap();
        let Some(output) = systemd_analyze(&["verify", "--man=no"], &path) else { return };
        let printed = String::from_utf8_lossy(&output.stderr);
        let of_unit: Vec<&str> = printed.lines().filter(|line| line.contains(unit)).collect();
        assert!(of_unit.is_empty(), "{printed}");
    }
}

#[test]
fn the_environment_file_has_the_names_that_the_agent_reads() {
    let settings: Vec<(String, String)> = read("agent.env")
        .lines()
        .map(|line| {
            line.strip_prefix("#PGISREADY").map_or(line.to_owned(), |it| format!("PGISREADY{it}"))
        })
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap())
        .collect();
    assert_eq!(settings.len(), 6);
    let understood = |settings: &[(String, String)]| {
        Command::new(env!("CARGO_BIN_EXE_pgsteer"))
            .args(["agent", "--check-config"])
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap()
    };
    let output = understood(&settings);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        printed.contains("http://127.0.0.1:8008") && printed.contains("0.0.0.0:5555"),
        "{printed}"
    );
    // Each variable is used: with a wrong value nothing starts.
    for (name, _) in settings.iter().filter(|(name, _)| name != "PGSTEER_AGENT_OPTIONS") {
        let mut wrong = settings.clone();
        wrong
            .iter_mut()
            .filter(|(other, _)| other == name)
            .for_each(|(_, value)| *value = "?!".into());
        assert_eq!(understood(&wrong).status.code(), Some(2), "{name}");
    }
}

#[test]
fn the_consul_file_is_json_and_uses_existing_pages() {
    let consul: serde_json::Value = serde_json::from_str(&read("consul-pgsteer.json")).unwrap();
    let text = consul.to_string();
    // The check does not depend on a primary, because clients that wait for one must not be sent
    // away.
    assert_eq!(text.matches("http://127.0.0.1:7000/healthz").count(), 2, "{text}");
}
