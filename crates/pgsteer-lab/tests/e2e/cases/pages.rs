//! The pages agree with the cluster and with what clients see.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgsteer_lab::Lab;

use crate::binary;
use crate::kept::Kept;
use crate::steer::{Steer, Wanted};

pub fn status_and_metrics_agree_with_the_cluster(lab: &Lab) -> Result<()> {
    let steer = Steer::start(lab, &Wanted::default())?;
    let old = lab.primary()?.name.clone();
    let _writers = Kept::several(steer.doors.write, 3)?;
    pages_show(lab, &steer, &old, 3)?;
    let new = lab.switchover(None)?.name.clone();
    steer.wait_until_ready()?;
    pages_show(lab, &steer, &new, 0)?;
    let _writer = Kept::open(steer.doors.write)?;
    pages_show(lab, &steer, &new, 1)?;
    let events = steer.status()?["clusters"][0]["events"].to_string();
    for what in [format!("{new} is primary"), format!("write gate of {new} is open")] {
        ensure!(events.contains(&what), "no event for {what}: {events}");
    }
    ensure!(steer.page("/healthz")? == "ok\n");
    ensure!(steer.status()?["stopping"] == false);
    check_recognises_a_patroni(lab)
}

/// Patroni answers any path.
fn check_recognises_a_patroni(lab: &Lab) -> Result<()> {
    let url = lab.primary()?.patroni_url();
    for of in ["write", "primary", "health"] {
        let asked =
            Command::new(binary::pgsteer()?).args(["check", of, "--http", &url]).output()?;
        let printed = String::from_utf8_lossy(&asked.stdout);
        ensure!(asked.status.code() == Some(2), "{of}: {printed}");
        ensure!(printed.contains("a Patroni answers there, not a pgsteer"), "{of}: {printed}");
    }
    Ok(())
}

/// All pages name this primary, with this number of writers' sessions.
fn pages_show(lab: &Lab, steer: &Steer, primary: &str, writers: u64) -> Result<()> {
    steer
        .wait_for("the pages to agree", Duration::from_secs(10), |steer| {
            agrees(lab, steer, primary, writers).is_ok()
        })
        .or_else(|_| agrees(lab, steer, primary, writers))
}

fn agrees(lab: &Lab, steer: &Steer, primary: &str, writers: u64) -> Result<()> {
    let status = steer.status()?;
    let members = status["clusters"][0]["members"].as_array().context("no members")?;
    ensure!(members.len() == lab.members().len(), "{status}");
    for member in members {
        let is_primary = member["name"] == primary;
        let role = if is_primary { "primary" } else { "replica" };
        let (write, read) = if is_primary { ("open", "shut") } else { ("shut", "open") };
        let services = &member["services"];
        ensure!(member["role"] == role, "{member}");
        ensure!(services["write"]["gate"] == write && services["read"]["gate"] == read, "{member}");
        let expected = if is_primary { writers } else { 0 };
        ensure!(services["write"]["sessions"] == expected, "{member}");
    }
    let metrics = steer.page("/metrics")?;
    let service = "cluster=\"lab\",service=\"write\"";
    let line = format!("pgsteer_sessions{{{service},member=\"{primary}\"}} {writers}");
    ensure!(metrics.lines().any(|each| each == line), "no line {line}: {metrics}");
    let line = format!("pgsteer_service_open_gates{{{service}}} 1");
    ensure!(metrics.lines().any(|each| each == line), "no line {line}: {metrics}");
    Ok(())
}
