//! The shortest start: one address of Patroni and nothing else.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgsteer_lab::{Lab, Truth};

use crate::clients::{psql, run};
use crate::steer::Steer;

/// Both services work, and a switchover refuses no client, without any login for pgsteer.
pub fn one_address_of_patroni_is_enough(lab: &Lab) -> Result<()> {
    let steer = Steer::newcomer(lab)?;
    steer.wait_until_ready()?;
    let (write, read) = (steer.doors.write, steer.doors.read);
    let create = "DROP TABLE IF EXISTS hello; CREATE TABLE hello AS SELECT 'world' AS word";
    run(psql(lab, write).args(["-c", create]))?;
    let whom = "SELECT pg_is_in_recovery()";
    ensure!(run(psql(lab, write).args(["-c", whom]))? == "f");
    ensure!(run(psql(lab, read).args(["-c", whom]))? == "t");
    super::switchover::under_load(lab, &steer, Duration::from_secs(30))?;
    ensure!(run(psql(lab, read).args(["-c", "SELECT word FROM hello"]))? == "world");
    let truth = Truth::watch(lab)?;
    ensure!(truth.writable() == [lab.primary()?.name.clone()]);
    Ok(())
}
