//! Without Patroni: the role comes from SQL alone, and two primaries are one too many.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER, Session};

use crate::kept::Kept;
use crate::steer::{Steer, Wanted};

const SOON: Duration = Duration::from_secs(10);

pub fn two_primaries_are_both_shut_until_one_is_left(lab: &Lab) -> Result<()> {
    for member in lab.members() {
        // A running Patroni would undo the promotion.
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
    let words = refusal(steer.doors.write)?;
    ensure!(words.contains("57P03: pgsteer has no primary for service write"), "{words}");
    // The third member still follows one of them and serves readers. When it is a primary as well,
    // no member serves them.
    let third = third_member(lab, &first, &second)?;
    ensure!(Kept::open(steer.doors.read)?.member_ip() == lab.member(&third)?.ip.to_string());
    lab.promote_by_hand(&third)?;
    steer
        .wait_for("no reader to be served", SOON, |steer| steer.gates().open("read").is_empty())?;
    let words = refusal(steer.doors.read)?;
    ensure!(words.contains("57P03: pgsteer has no replica for service read"), "{words}");
    let reasons = steer.log();
    let all: Vec<&str> = lab.members().iter().map(|member| member.name.as_str()).collect();
    ensure!(reasons.contains(&format!("split brain: {}", all.join(", "))), "{reasons}");
    // An operator decides: one primary stays, and the split brain ends with the crash of the
    // others.
    lab.crash(&second)?;
    lab.crash(&third)?;
    steer.wait_for_gate("write", &first, "open", SOON)?;
    Kept::open(steer.doors.write)?.ensure_alive()
}

fn refusal(door: SocketAddr) -> Result<String> {
    let refused = Session::connect(door, SUPERUSER, "postgres", Duration::from_secs(20));
    Ok(refused.err().context("a member serves")?.to_string())
}

fn third_member(lab: &Lab, first: &str, second: &str) -> Result<String> {
    let mut names = lab.members().iter().map(|member| &member.name);
    let third = names.find(|name| *name != first && *name != second);
    third.cloned().context("there is no third member")
}
