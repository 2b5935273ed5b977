//! Bulk transfer: about 200 MB by COPY, out of the database and into it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{Bench, Contender};
use crate::bench_setup::app_sql;
use crate::table::median;
use crate::usage::cpu;
use pgsteer_lab::APP;
use pgsteer_lab::Lab;

const ROWS: usize = 200_000;
/// Without the newline that COPY adds.
const ROW_BYTES: usize = 999;
const MEGABYTES: f64 = (ROWS * (ROW_BYTES + 1)) as f64 / 1e6;

const SINK: &str = "CREATE UNLOGGED TABLE sink (line text); ALTER TABLE sink OWNER TO app";
const COPY_IN: &str = "TRUNCATE sink; COPY sink FROM STDIN";

/// One direction.
#[derive(Debug)]
pub struct Bulk {
    pub name: &'static str,
    pub direct_mb_per_s: f64,
    pub pgsteer: Flow,
    pub haproxy: Flow,
}

/// The figures of one proxy; medians.
#[derive(Debug)]
pub struct Flow {
    pub mb_per_s: f64,
    /// CPU of the proxy, in microseconds per megabyte.
    pub cpu_us_per_mb: f64,
}

pub fn measure(bench: &Bench<'_>, rounds: usize) -> Result<Vec<Bulk>> {
    app_sql(bench.lab, SINK)?;
    let file = bench.lab.folder().join("bulk.txt");
    write_rows(&file).with_context(|| format!("cannot write {}", file.display()))?;
    let copy_out =
        format!("COPY (SELECT repeat('x', {ROW_BYTES}) FROM generate_series(1, {ROWS})) TO STDOUT");
    let out = Copy { name: "COPY TO, out", sql: &copy_out, input: None };
    let into = Copy { name: "COPY FROM, in", sql: COPY_IN, input: Some(file) };
    [out, into].iter().map(|copy| copy.measure(bench, rounds)).collect()
}

/// A COPY by psql.
struct Copy<'a> {
    name: &'static str,
    sql: &'a str,
    input: Option<PathBuf>,
}

impl Copy<'_> {
    fn measure(&self, bench: &Bench<'_>, rounds: usize) -> Result<Bulk> {
        let (mut direct, mut pgsteer, mut haproxy) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            pgsteer.push(self.through(bench, bench.pgsteer)?);
            haproxy.push(self.through(bench, bench.haproxy)?);
            direct.push(self.seconds(bench.lab, bench.direct)?);
        }
        let direct_mb_per_s = MEGABYTES / median(&direct).unwrap_or(f64::NAN);
        println!("{}: done", self.name);
        Ok(Bulk {
            name: self.name,
            direct_mb_per_s,
            pgsteer: flow(&pgsteer),
            haproxy: flow(&haproxy),
        })
    }

    /// The elapsed seconds, and the proxy's seconds of CPU.
    fn through(&self, bench: &Bench<'_>, contender: Contender) -> Result<(f64, f64)> {
        let before = cpu(contender.pid)?;
        let seconds = self.seconds(bench.lab, contender.addr)?;
        Ok((seconds, cpu(contender.pid)?.saturating_sub(before).as_secs_f64()))
    }

    fn seconds(&self, lab: &Lab, addr: SocketAddr) -> Result<f64> {
        let dsn =
            format!("postgresql://{APP}:{APP}@{addr}/{APP}?sslmode=disable&gssencmode=disable");
        let input = match &self.input {
            Some(path) => Stdio::from(File::open(path)?),
            None => Stdio::null(),
        };
        let mut command = Command::new(lab.postgres_bin().join("psql"));
        for part in self.sql.split("; ") {
            command.args(["-c", part]);
        }
        let began = Instant::now();
        let status = command
            .args(["-Xq", &dsn])
            .stdin(input)
            .stdout(Stdio::null())
            .status()
            .context("cannot run psql")?;
        ensure!(status.success(), "{} through {addr}: {status}", self.name);
        Ok(began.elapsed().as_secs_f64())
    }
}

fn flow(runs: &[(f64, f64)]) -> Flow {
    let of = |value: fn(&(f64, f64)) -> f64| {
        median(&runs.iter().map(value).collect::<Vec<f64>>()).unwrap_or(f64::NAN)
    };
    Flow { mb_per_s: MEGABYTES / of(|run| run.0), cpu_us_per_mb: of(|run| run.1) * 1e6 / MEGABYTES }
}

fn write_rows(path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let row = "x".repeat(ROW_BYTES);
    for _ in 0..ROWS {
        writeln!(file, "{row}")?;
    }
    file.flush()
}
