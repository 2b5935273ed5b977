//! The demo: a story on the terminal with real output. Each statement in it is checked.

mod stage;
mod terminal;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use self::stage::{Stage, StageOptions};
use self::terminal::Terminal;
use self::writer::{Writer, WriterReport};
use crate::lab::Lab;
use crate::patience::wait_for;
use crate::truth::Truth;

/// How long the writer writes before the switchover, and again after it.
const CALM: Duration = Duration::from_millis(1_500);
/// Patroni needs 2 to 5 seconds here; a loaded machine needs more.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(60);
/// How long a row may take to appear on a replica.
const REPLAY_LIMIT: Duration = Duration::from_secs(15);

/// The options of the demo.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The pgsteer to show.
    pub pgsteer: PathBuf,
    /// Rely on Patroni alone, without a login for the tether.
    pub without_login: bool,
}

/// Runs the demo on the stage.
///
/// # Errors
///
/// The first check that failed.
pub fn run(stage: &Stage<'_>) -> Result<()> {
    let terminal = Terminal::new(stage);
    terminal.chapter("A real cluster, and one pgsteer");
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
    // A read can reach any replica, and before replay even the table may be missing there.
    await_replay(lab)?;
    if terminal.quiet_read("SELECT pg_is_in_recovery()")? != "t" {
        bail!("reads go to a primary");
    }
    terminal.read("SELECT id, line, inet_server_addr() AS read_on, pg_is_in_recovery() AS on_a_replica FROM story")
}

/// Waits until every replica has replayed what is written so far.
fn await_replay(lab: &Lab) -> Result<()> {
    let written = lab.sql(&lab.primary()?.name, "SELECT pg_current_wal_lsn()")?;
    let mut positions = written.into_iter().flatten().flatten();
    let lsn = positions.next().context("the primary returns no WAL position")?;
    let has_replayed = format!("SELECT 1 WHERE pg_last_wal_replay_lsn() >= '{lsn}'");
    wait_for("the replicas to replay what was written", REPLAY_LIMIT, || {
        let replicas = lab.replicas().map_err(|error| format!("{error:#}"))?;
        let is_behind =
            |name: &str| lab.sql(name, &has_replayed).map_or(true, |rows| rows.is_empty());
        let late = replicas.iter().find(|replica| is_behind(&replica.name));
        late.map_or(Ok(()), |replica| Err(format!("{} is not at {lsn} yet", replica.name)))
    })
}

/// Returns the names of the old and the new primary.
fn switch_over_under_load(terminal: &Terminal<'_>, stage: &Stage<'_>) -> Result<(String, String)> {
    terminal.chapter("Switch over under load");
    let old = stage.lab().primary()?.name.clone();
    let truth = Truth::watch(stage.lab())?;
    terminal.line(
        "A writer opens one connection after the other, and inserts a row with each. Its connection\n\
         string names the port twice, so that libpq has a next host to try.",
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
    let report = writer.stop()?;
    terminal.line(&format!(
        "{old} was the primary, {} is. The writer opened {} connections: {} failed.",
        successor.member,
        report.connections,
        report.failed.len(),
    ));
    let after = report
        .first_success_after(successor.at)
        .context("no write came through after the switchover")?;
    terminal.line(&format!(
        "The longest connection waited {:.2} s at pgsteer while there was no primary;\n\
         it was served {} ms after {} began to take writes.",
        report.longest.as_secs_f64(),
        after.as_millis(),
        successor.member,
    ));
    if let Some(failure) = report.failed.first() {
        bail!("a connection of the writer failed: {failure}");
    }
    if let Some(cut_off) = report.cut_off.first() {
        terminal.line(&format!(
            "{} was connected just before, and the old primary's shutdown ended it in the middle\n\
             of its statement, as without a proxy: {cut_off}",
            report.cut_off.len(),
        ));
    }
    count_the_rows(terminal, &report)?;
    Ok((old, successor.member))
}

/// No acknowledged row may be lost. The outcome of a statement that was cut off is unknown.
fn count_the_rows(terminal: &Terminal<'_>, report: &WriterReport) -> Result<()> {
    const COUNT: &str = "SELECT count(*) FROM story WHERE line = 'written by the writer'";
    let rows: usize = terminal.quiet_write(COUNT)?.parse().context("count(*) is a number")?;
    let written = report.written();
    terminal.line(&format!("{written} rows were acknowledged; SELECT count(*) returns {rows}."));
    if !(written..=written + report.cut_off.len()).contains(&rows) {
        bail!("{written} rows were acknowledged, but the table has {rows}");
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
