//! All members are down: clients wait, get the reason, and are served again after the outage.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session};

use super::join;
use crate::steer::{Steer, Wanted};

const HOLD: Duration = Duration::from_secs(2);

pub fn clients_get_the_reason_and_are_served_after_the_outage(lab: &Lab) -> Result<()> {
    let hold = "hold_seconds = 2";
    let steer = Steer::start(lab, &Wanted { write: hold, read: hold, ..Wanted::default() })?;
    for member in lab.members() {
        lab.crash(&member.name)?;
    }
    steer.wait_for("all gates to be shut", Duration::from_secs(10), |steer| {
        steer.gates().open("write").is_empty() && steer.gates().open("read").is_empty()
    })?;
    for door in [steer.doors.write, steer.doors.read] {
        let began = Instant::now();
        let refused = Session::connect(door, SUPERUSER, "postgres", Duration::from_secs(20));
        let words = refused.err().context("a member answers")?.to_string();
        ensure!(began.elapsed() >= HOLD, "refused after {:?}: {words}", began.elapsed());
        ensure!(words.contains("57P03: pgsteer has no "), "{words}");
    }
    let printed = steer.messages();
    ensure!(printed.iter().any(|line| line.contains("waited 2.0 s")), "{printed:?}");
    for member in lab.members() {
        lab.revive(&member.name)?;
    }
    // A client that connects before there is a primary waits for it.
    let door = steer.doors.write;
    let early = std::thread::spawn(move || {
        loop {
            match Session::connect(door, SUPERUSER, "postgres", Duration::from_secs(20)) {
                Err(error) if error.to_string().contains("57P03") => {}
                other => return other.map(drop),
            }
        }
    });
    lab.wait_healthy(Duration::from_secs(60))?;
    steer.wait_until_ready()?;
    join(early)?.context("a client that came early")?;
    Ok(())
}
