//! Every profile of `pgsteer render haproxy` through switchovers, with HAProxy 2.6 and 3.0: no client
//! hangs. `make profiles` plays all of them, and writes what became of the clients to docs/RENDER.md.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgsteer_lab::{Lab, SUPERUSER};

use crate::crowd::{Crowd, Tally};
use crate::installed::installed;
use crate::rendered::{Rendered, Version, agent, agent_section, pooler_port};
use crate::steer::{Steer, Wanted};

/// Where the unpacked HAProxy 3.0 is, below the lab's cache.
pub const HAPROXY_3_0: &str = "haproxy-3.0/haproxy";
/// Long enough for the machine that has the cluster, HAProxy and the clients.
const DETECT: &str = "3s";
/// Before and after each switchover.
const CALM: Duration = Duration::from_secs(1);
/// The file whose table is written, with all versions and more switchovers.
const OUT: &str = "PGSTEER_PROFILES_OUT";
const PROFILES: [&str; 7] =
    ["httpchk", "agent", "agent-bypass", "push", "sql", "redirect", "pgsteer"];
const SWITCHOVERS: usize = 3;
const BEGIN: &str = "<!-- profiles:begin -->\n";
const END: &str = "<!-- profiles:end -->";

/// What became of the clients of one profile.
struct Row {
    haproxy: &'static str,
    profile: &'static str,
    switchovers: usize,
    tally: Tally,
}

pub fn no_client_hangs_with_haproxy_3_0(lab: &Lab) -> Result<()> {
    let newest = Version { of_file: "3.0", program: Some(installed(HAPROXY_3_0)?) };
    let Some(out) = std::env::var_os(OUT) else {
        return check(&play(lab, "3.0", &newest, 1)?);
    };
    let oldest = Version { of_file: "2.6", program: None };
    let mut rows = play(lab, "2.6", &oldest, SWITCHOVERS)?;
    rows.extend(play(lab, "3.0", &newest, SWITCHOVERS)?);
    check(&rows)?;
    rows.push(wrong_file(lab, newest)?);
    write(Path::new(&out), &rows)
}

/// HAProxy 3.0 with the file for 2.6, whose `retries` it does not survive: the clients see it.
fn wrong_file(lab: &Lab, newest: Version) -> Result<Row> {
    let version = Version { of_file: "2.6", ..newest };
    let profile = "httpchk";
    lab.reset()?;
    let doors = [door(lab, &version, profile)?];
    let tally = switchovers(lab, &doors, SWITCHOVERS)?.into_iter().next().context("no clients")?;
    Ok(Row { haproxy: "3.0 with the file for 2.6", profile, switchovers: SWITCHOVERS, tally })
}

fn check(rows: &[Row]) -> Result<()> {
    for Row { haproxy, profile, tally, .. } in rows {
        ensure!(tally.hung == 0, "HAProxy {haproxy}, profile {profile}: clients hang: {tally:?}");
        ensure!(tally.served > 0, "HAProxy {haproxy}, profile {profile}: nobody got in");
    }
    Ok(())
}

/// All profiles through so many switchovers, two at a time, because six crowds at once are more than
/// a small cluster serves.
fn play(lab: &Lab, haproxy: &'static str, version: &Version, count: usize) -> Result<Vec<Row>> {
    let (pooled, more) = (pooler_port(lab), agent_section(lab));
    let wanted = Wanted { write: &pooled, read: &pooled, more: &more, ..Wanted::default() };
    let _steer = Steer::start(lab, &wanted)?;
    let mut rows = Vec::new();
    for profiles in PROFILES.chunks(2) {
        lab.reset()?;
        let doors: Result<Vec<_>> = profiles.iter().map(|it| door(lab, version, it)).collect();
        let doors = doors?;
        let tallies = switchovers(lab, &doors, count)?;
        let row = |((profile, _), tally): (&(&'static str, Rendered), _)| Row {
            haproxy,
            profile,
            switchovers: count,
            tally,
        };
        rows.extend(doors.iter().zip(tallies).map(row));
    }
    Ok(rows)
}

fn door(lab: &Lab, version: &Version, profile: &'static str) -> Result<(&'static str, Rendered)> {
    let (agent, host) = (agent(lab).to_string(), lab.host_ip().to_string());
    let local = lab.primary()?.name.clone();
    let mut words = match profile {
        "agent" | "agent-bypass" => vec!["--agent", &agent],
        "sql" => vec!["--check-user", SUPERUSER],
        "redirect" => vec!["--local", &local, "--pass", "192.0.2.1"],
        "pgsteer" => vec!["--door", &host],
        _ => Vec::new(),
    };
    words.extend(["--detect", DETECT]);
    Ok((profile, Rendered::launch_of(lab, version, profile, &words)?))
}

fn switchovers(lab: &Lab, doors: &[(&'static str, Rendered)], count: usize) -> Result<Vec<Tally>> {
    for (_, door) in doors {
        door.wait("the primary is found", |it| it.leads_right(lab))?;
    }
    let crowds: Result<Vec<Crowd>> = doors.iter().map(|(_, it)| Crowd::start(it.write)).collect();
    let crowds = crowds?;
    for _ in 0..count {
        std::thread::sleep(CALM);
        lab.switchover(None)?;
        for (_, door) in doors {
            door.wait("the new primary is found", |it| it.leads_right(lab))?;
        }
        std::thread::sleep(CALM);
        lab.reset()?;
    }
    crowds.iter().for_each(Crowd::end);
    crowds.into_iter().map(Crowd::count).collect()
}

fn write(file: &Path, rows: &[Row]) -> Result<()> {
    let mut table =
        "| HAProxy | profile | switchovers | logins | served | refused or ended | hang |\n\
                     |---|---|---|---|---|---|---|\n"
            .to_owned();
    for Row { haproxy, profile, switchovers, tally } in rows {
        let Tally { logins, served, hung } = *tally;
        let refused = logins - served - hung;
        writeln!(
            table,
            "| {haproxy} | `{profile}` | {switchovers} | {logins} | {served} | {refused} | {hung} |"
        )?;
    }
    let text = std::fs::read_to_string(file)?;
    let (before, rest) = text.split_once(BEGIN).context("the page has no place for the table")?;
    let (_, after) = rest.split_once(END).context("the table has no end")?;
    Ok(std::fs::write(file, format!("{before}{BEGIN}{table}{END}{after}"))?)
}
