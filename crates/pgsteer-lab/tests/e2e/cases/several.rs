//! Two pgsteers, one after the other in libpq's host list.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgsteer_lab::{Lab, Signal};

use crate::clients::{psql, run};
use crate::steer::{Doors, Steer, Wanted};

pub fn libpq_tries_the_second_pgsteer(lab: &Lab) -> Result<()> {
    // The first pgsteer has no suitable member, in any state of the cluster.
    let unsuitable = "hold_seconds = 0.5\ntags = { nowhere = 'yes' }";
    let mut first = Steer::start_blind(lab, &Wanted { write: unsuitable, ..Wanted::default() })?;
    let _second = Steer::start(lab, &Wanted { name: "second", shift: 100, ..Wanted::default() })?;
    first.wait_for_log("read gate of", Duration::from_secs(10))?;
    ensure!(through_either(lab)? == "f");
    ensure!(first.log().contains("client refused"), "the first was not even tried");
    first.signal(Signal::TERM)?;
    first.wait(Duration::from_secs(10))?;
    ensure!(through_either(lab)? == "f");
    Ok(())
}

fn through_either(lab: &Lab) -> Result<String> {
    let (first, second) = (Doors::new(lab, 0).write, Doors::new(lab, 100).write);
    let mut command = psql(lab, first);
    command
        .env("PGHOST", format!("{},{}", first.ip(), second.ip()))
        .env("PGPORT", format!("{},{}", first.port(), second.port()))
        .args(["-c", "SELECT pg_is_in_recovery()"]);
    run(&mut command)
}
