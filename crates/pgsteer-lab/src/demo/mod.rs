//! The demo: a story told on the terminal with real output, every sentence of which is checked.

mod stage;
mod terminal;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use self::stage::{Stage, StageOptions};
use self::terminal::Terminal;
use self::writer::{Tale, Writer};
use crate::lab::Lab;
use crate::patience::wait_for;
use crate::truth::Truth;

/// How long the writer writes before the switchover and after it.
const CALM: Duration = Duration::from_millis(1_500);
/// Patroni needs 2 to 5 seconds here; a loaded machine more.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(60);
/// How long a row may take to show on a replica.
const REPLAY_LIMIT: Duration = Duration::from_secs(15);

/// How the demo is to go.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The pgsteer to show.
    pub pgsteer: PathBuf,
    /// Let it go by Patroni's word alone, without a login for its tether.
    pub without_login: bool,
}

/// Tells the story on the stage.
///
/// # Errors
/// Whatever did not come true.
pub fn tell(stage: &Stage<'_>) -> Result<()> {
    let terminal = Terminal::new(stage);
    terminal.chapter("A real cluster, and one front door");
    terminal.line(&stage.lab().directory()?);
    terminal.line(&format!("$ {}", stage.command_line()));
    terminal.line(&format!("\nTo look on from another terminal:\n\n{}", stage.addresses()));
    write_and_read(&terminal, stage.lab())?;
    let (old, new) = switch_over_under_load(&terminal, stage)?;
    show_the_new_primary(&terminal, stage, &old, &new)
}

fn write_and_read(terminal: &Terminal<'_>, lab: &Lab) -> Result<()> {
    terminal.chapter("Write on 5000, read it on 5001");
    terminal.write(
        "CREATE TABLE story (id serial PRIMARY KEY, line text, at timestamptz DEFAULT now())",
    )?;
    terminal.write("INSERT INTO story (line) VALUES ('once upon a time') RETURNING id, line, inet_server_addr() AS written_on")?;
    // Whichever of them it is read from: before, there may not even be the table.
    await_replay(lab)?;
    if terminal.quiet_read("SELECT pg_is_in_recovery()")? != "t" {
        bail!("reads go to a primary");
    }
    terminal.read("SELECT id, line, inet_server_addr() AS read_on, pg_is_in_recovery() AS on_a_replica FROM story")
}

/// Waits until every replica has replayed what is written by now.
fn await_replay(lab: &Lab) -> Result<()> {
    let written = lab.sql(&lab.primary()?.name, "SELECT pg_current_wal_lsn()")?;
    let mut positions = written.into_iter().flatten().flatten();
    let lsn = positions.next().context("the primary does not tell its position")?;
    let has_replayed = format!("SELECT 1 WHERE pg_last_wal_replay_lsn() >= '{lsn}'");
    wait_for("the replicas to replay what was written", REPLAY_LIMIT, || {
        let replicas = lab.replicas().map_err(|error| format!("{error:#}"))?;
        let is_behind =
            |name: &str| lab.sql(name, &has_replayed).map_or(true, |rows| rows.is_empty());
        let late = replicas.iter().find(|replica| is_behind(&replica.name));
        late.map_or(Ok(()), |replica| Err(format!("{} is not at {lsn} yet", replica.name)))
    })
}

/// Gives back the names of the old and the new primary.
fn switch_over_under_load(terminal: &Terminal<'_>, stage: &Stage<'_>) -> Result<(String, String)> {
    terminal.chapter("Switch over while somebody writes");
    let old = stage.lab().primary()?.name.clone();
    let truth = Truth::watch(stage.lab())?;
    terminal.line(
        "A writer opens one connection after the other, and inserts a row with each. It names the\n\
         door twice, as one names two doors, so that libpq has a next host to go to.",
    );
    let writer = Writer::start(stage)?;
    std::thread::sleep(CALM);
    terminal.line(&format!(
        "$ curl -X POST {}/switchover -d '{{\"leader\": \"{old}\"}}'",
        stage.patroni_url(&old)?
    ));
    let order = stage.lab().order_switchover(None)?;
    let successor = truth.wait_for_successor(&old, SWITCHOVER_LIMIT)?;
    order.wait()?;
    std::thread::sleep(CALM);
    let tale = writer.stop()?;
    terminal.line(&format!(
        "{old} was the primary, {} is. The writer opened {} connections: {} failed.",
        successor.member,
        tale.connections,
        tale.failed.len(),
    ));
    let after = tale
        .first_success_after(successor.at)
        .context("no write came through after the switchover")?;
    terminal.line(&format!(
        "The longest waited {:.2} s, parked at the front door while there was no primary;\n\
         it was through {} ms after {} could be written to.",
        tale.longest.as_secs_f64(),
        after.as_millis(),
        successor.member,
    ));
    if let Some(failure) = tale.failed.first() {
        bail!("a connection of the writer failed: {failure}");
    }
    if let Some(cut_off) = tale.cut_off.first() {
        terminal.line(&format!(
            "{} was let in just before, and cut off by the old primary's shutdown in the middle\n\
             of its statement, as it is without a proxy: {cut_off}",
            tale.cut_off.len(),
        ));
    }
    count_the_rows(terminal, &tale)?;
    Ok((old, successor.member))
}

/// No row is lost that was acknowledged. Of a statement that was cut off nobody knows.
fn count_the_rows(terminal: &Terminal<'_>, tale: &Tale) -> Result<()> {
    const COUNT: &str = "SELECT count(*) FROM story WHERE line = 'written by the writer'";
    let rows: usize = terminal.quiet_write(COUNT)?.parse().context("count(*) is a number")?;
    let written = tale.written();
    terminal.line(&format!("{written} rows were acknowledged; SELECT count(*) says {rows}."));
    if !(written..=written + tale.cut_off.len()).contains(&rows) {
        bail!("{written} rows were acknowledged, {rows} are there");
    }
    Ok(())
}

fn show_the_new_primary(
    terminal: &Terminal<'_>,
    stage: &Stage<'_>,
    old: &str,
    new: &str,
) -> Result<()> {
    terminal.chapter("The same port, another primary");
    terminal.write("SELECT inet_server_addr() AS primary_now, pg_is_in_recovery()")?;
    let serves = terminal.quiet_write("SELECT host(inet_server_addr())")?;
    let expected = stage.lab().member(new)?.ip.to_string();
    if serves != expected {
        bail!("writes go to {serves}, but {new} at {expected} took over from {old}");
    }
    terminal.status()
}
