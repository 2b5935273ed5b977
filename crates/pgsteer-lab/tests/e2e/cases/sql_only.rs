//! Without Patroni: SQL alone tells who is primary, and two of them are one too many.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session};

use crate::kept::Kept;
use crate::steer::{Steer, Wanted};

const SOON: Duration = Duration::from_secs(10);

pub fn two_primaries_are_both_shut_until_one_is_left(lab: &Lab) -> Result<()> {
    for member in lab.members() {
        // Alive it would undo the promotion.
        lab.kill_patroni(&member.name)?;
    }
    let hold = "hold_seconds = 1";
    let wanted = Wanted { patroni: false, write: hold, read: hold, ..Wanted::default() };
    let steer = Steer::start(lab, &wanted)?;
    let first = lab.primary()?.name.clone();
    let mut writers = Kept::several(steer.doors.write, 3)?;
    let mut readers = Kept::several(steer.doors.read, 3)?;
    for session in writers.iter_mut().chain(&mut readers) {
        session.ensure_alive()?;
    }
    let second = lab.replicas()?[0].name.clone();
    lab.promote_by_hand(&second)?;
    for name in [&first, &second] {
        steer.wait_for(&format!("{name} shut for split brain"), SOON, |steer| {
            steer.gate("write", name).is_ok_and(|gate| gate.is("shut", "split_brain"))
        })?;
    }
    for session in &mut writers {
        let words = session.ensure_ended()?;
        ensure!(words.contains("57P01") && words.contains("split brain"), "{words}");
    }
    let words = refusal(&steer)?;
    ensure!(words.contains("57P03: pgsteer has no primary for service write"), "{words}");
    let told = steer.messages();
    let both = format!("split brain: {}", [&first, &second].map(String::as_str).join(", "));
    let both_sorted = format!("split brain: {}", [&second, &first].map(String::as_str).join(", "));
    let names_both = |line: &String| line.contains(&both) || line.contains(&both_sorted);
    ensure!(told.iter().any(names_both), "{told:?}");
    // A person decides: the second goes, and with it the doubt.
    lab.crash(&second)?;
    steer.wait_for_gate("write", &first, "open", SOON)?;
    Kept::open(steer.doors.write)?.ensure_alive()
}

fn refusal(steer: &Steer) -> Result<String> {
    let door = steer.doors.write;
    let refused = Session::connect(door, SUPERUSER, "postgres", Duration::from_secs(20));
    Ok(refused.err().context("somebody takes writes")?.to_string())
}
