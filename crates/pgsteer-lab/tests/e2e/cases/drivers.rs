//! The programs and drivers in common use, in typical use.

use anyhow::{Context, Result, ensure};
use pgsteer_lab::Lab;

use crate::clients::{pgbench, psql, python, run, run_failing};
use crate::steer::{Steer, Wanted};

pub fn psql_logs_in_by_scram_and_gets_the_servers_own_errors(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let who = ["-c", "SELECT current_user"];
    for door in [steer.doors.write, steer.doors.read] {
        ensure!(run(psql(lab, door).args(who))? == "app");
        for mode in ["disable", "prefer"] {
            ensure!(run(psql(lab, door).args(who).env("PGSSLMODE", mode))? == "app");
        }
        let words = run_failing(psql(lab, door).args(who).env("PGPASSWORD", "wrong"))?;
        ensure!(words.contains("password authentication failed for user \"app\""), "{words}");
        let words = run_failing(psql(lab, door).args(who).env("PGDATABASE", "nowhere"))?;
        ensure!(words.contains("nowhere"), "{words}");
        let words = run_failing(psql(lab, door).args(who).env("PGSSLMODE", "require"))?;
        ensure!(words.contains("server does not support SSL"), "{words}");
    }
    let printed = run(psql(lab, steer.doors.read).args(["-c", "CREATE TABLE no (n int)"]));
    let words = format!("{:#}", printed.err().context("a replica has taken a write")?);
    ensure!(words.contains("read-only transaction"), "{words}");
    // A wrong password of one client does not block other clients.
    ensure!(run(psql(lab, steer.doors.write).args(who))? == "app");
    Ok(())
}

pub fn psycopg_pipelines_copies_and_fails_as_without_a_proxy(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let printed = run(&mut python("pipelines.py", steer.doors.write)?)?;
    ensure!(printed == "1000 rows by a pipeline, 1 error in its place", "{printed}");
    let printed = run(&mut python("copies.py", steer.doors.write)?)?;
    ensure!(
        printed.starts_with("copied ") && printed.ends_with(" bytes there and back"),
        "{printed}"
    );
    Ok(())
}

pub fn pgbench_runs_without_an_error(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let (write, read) = (steer.doors.write, steer.doors.read);
    run(pgbench(lab, write).args(["-i", "-q", "-s", "1"]))?;
    run(pgbench(lab, write).args(["-n", "-c", "8", "-T", "5"])).and_then(is_clean)?;
    // A new connection for each transaction.
    run(pgbench(lab, write).args(["-n", "-C", "-c", "4", "-T", "2"])).and_then(is_clean)?;
    let prepared = ["-n", "-S", "-M", "prepared", "-c", "8", "-T", "2"];
    run(pgbench(lab, read).args(prepared)).and_then(is_clean)?;
    Ok(())
}

fn is_clean(printed: String) -> Result<()> {
    ensure!(printed.contains("number of failed transactions: 0 (0.000%)"), "{printed}");
    ensure!(!printed.contains("error") && !printed.contains("aborted"), "{printed}");
    Ok(())
}
