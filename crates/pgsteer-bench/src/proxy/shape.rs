//! The shapes of load, each with its arguments of pgbench.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Bench;
use pgsteer_lab::APP;
use pgsteer_lab::Lab;

/// The arguments of pgbench for one load.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    arguments: &'static [&'static str],
}

/// The shape that has a bar.
pub const MAIN: Shape = Shape {
    name: "pgbench -S -M prepared -c 4",
    arguments: &["-S", "-M", "prepared", "-c", "4", "-j", "2"],
};

/// For information.
pub const OTHERS: [Shape; 4] = [
    Shape { name: "one client (-c 1)", arguments: &["-S", "-M", "prepared", "-c", "1", "-j", "1"] },
    Shape {
        name: "32 clients (-c 32)",
        arguments: &["-S", "-M", "prepared", "-c", "32", "-j", "2"],
    },
    Shape {
        name: "simple protocol (-M simple -c 4)",
        arguments: &["-S", "-M", "simple", "-c", "4", "-j", "2"],
    },
    Shape {
        name: "a connection per transaction (-C -c 4)",
        arguments: &["-S", "-C", "-c", "4", "-j", "2"],
    },
];

/// pgbench's figures of one run.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub transactions: u64,
    pub tps: f64,
    pub latency_ms: f64,
}

/// Fills pgbench's tables: a million rows, so many that reads of one row do not collide.
pub fn fill(bench: &Bench<'_>) -> Result<()> {
    pgbench(bench.lab, bench.direct, &["-i", "-q", "-s", "10"]).map(|_| ())
}

/// Runs one shape through one address.
pub fn run(lab: &Lab, addr: SocketAddr, shape: &Shape, time: Duration) -> Result<Outcome> {
    let seconds = time.as_secs().to_string();
    let text = pgbench(lab, addr, &[shape.arguments, &["-n", "-T", &seconds]].concat())?;
    outcome(&text).with_context(|| format!("cannot parse the output of pgbench: {text}"))
}

fn pgbench(lab: &Lab, addr: SocketAddr, arguments: &[&str]) -> Result<String> {
    let output = Command::new(lab.postgres_bin().join("pgbench"))
        .args(arguments)
        .args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-U", APP, APP])
        .env("PGPASSWORD", APP)
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .output()
        .context("cannot run pgbench")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench through {addr}: {}", words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn outcome(text: &str) -> Option<Outcome> {
    let word = |label: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
        rest.split_whitespace().next()
    };
    Some(Outcome {
        transactions: word("number of transactions actually processed:")?.parse().ok()?,
        tps: word("tps =")?.parse().ok()?,
        latency_ms: word("latency average =")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_pgbench_is_parsed() {
        let text = "transaction type: <builtin: select only>\n\
            number of transactions actually processed: 121\n\
            number of failed transactions: 0 (0.000%)\n\
            latency average = 0.104 ms\n\
            initial connection time = 9.270 ms\n\
            tps = 9597.8 (without initial connection time)\n";
        let outcome = outcome(text).unwrap();
        assert_eq!(outcome.transactions, 121);
        assert!((outcome.tps - 9597.8).abs() < 1e-6);
        assert!((outcome.latency_ms - 0.104).abs() < 1e-6);
    }
}
