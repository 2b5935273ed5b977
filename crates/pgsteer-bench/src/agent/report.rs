//! The section of docs/AGENT.md: the bars, the fault table, answers and their cost.

use std::fmt::Write;
use std::time::Duration;

use super::table::{AGENT_INTER, BACKENDS, Row, TIMEOUT};
use super::{Answers, BARE, BLOG_PER_SECOND, CROWD, Cost, Measured, PER_SECOND};
use crate::bars::Bars;
use crate::clock::today;
use crate::table::{Table, median, span};
use pgsteer_lab::agents::{Assessment, Fault, LOOK_EVERY};

/// The time that agents may take beyond the interval of the checks.
const GRACE: Duration = Duration::from_millis(100);

pub fn section(measured: &Measured) -> String {
    let mut text = String::from("## Measured: faults, answers, cost\n\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "`make bench-agent`, {}.\n\n{}\n", today(), measured.versions);
    let _ = writeln!(text, "### The bars\n\n{}", bars(measured));
    let _ = writeln!(text, "### The state that HAProxy shows\n\n{}", faults(&measured.rows));
    let _ = writeln!(text, "{}", HOW_FAULTS.replace("{look}", &ms(LOOK_EVERY)));
    let _ = writeln!(text, "### Answers\n\n{}", answers(&measured.answering.answers));
    let _ = writeln!(text, "### Cost\n\n{}", costs(measured));
    text
}

const HOW_FAULTS: &str = "\
One cluster of three members, one HAProxy with five backends, and each agent on the address of its
member; `agent-inter 500ms` for all.

- *pgsteer* is docs/haproxy/recommended.cfg. Its agents have a check login, check the path through
  PgBouncer (`-r`), and count a server as hung after 500 ms.
- *pgsteer, pushed* is one `pgsteer agent` beside HAProxy that writes its gates to the Runtime API
  (`[haproxy]`, docs/HAPROXY.md), with Patroni's `GET /primary` as HAProxy's own check. The server is DOWN while
  that check fails, and it counts as not up at weight 0. Its process goes on when the agents are killed.
- *pgsteer, happac's line* uses the same agents with the lines of scenario B, where only a TCP check stands
  beside the agent.
- *happac* (scenario B) and *blog's daemon* (the blog's backend, with its check of Patroni beside the
  agent) are stand-ins. They are written from the description of those programs, not from their code.
  They use Debian's Patroni 3.0.2, because the blog's daemon expects the role `master`. Patroni 4 does not
  report that role, so with it the daemon keeps every node in maintenance.

All servers are the members' PgBouncers.

Each time starts when the correct state changes, and ends when HAProxy shows the correct state, as read
from `show stat` every {look}. Direct connections to each member show when it starts and stops to take
writes. *Always* means that HAProxy showed the correct state from the start and kept it.

- *another is promoted*: the leader lock expires. The old primary's PostgreSQL keeps taking writes, because
  its Patroni cannot report the loss of the lock.
- *PostgreSQL hung*: only time distinguishes a hang from a slow answer. The next probe starts within 250 ms,
  `timeout_seconds` of `[check]` (here 500 ms) has to pass, and then the next agent-check follows.
- *led to a replica by a reload*: PgBouncer keeps existing sessions on their server, pgsteer's session
  included. pgsteer logs in again every 5 to 5.5 s, and only the new session shows the change.
- *agent killed*: the agents of all four backends. HAProxy keeps the last answer of each agent. That is
  correct while no role changes; in the next row a role changes. A health check by another process helps,
  as in recommended.cfg, and so does a supervisor that restarts the agent.
";

fn bars(measured: &Measured) -> String {
    let mut bars = Bars::new();
    let ours = || measured.rows.iter().map(|row| (row, &row.judgements[0]));
    let right = ours().filter(|(_, assessed)| assessed.is_right()).count();
    let all = measured.rows.len();
    let words = (format!("{right} of {all}"), right == all && all > 0);
    bars.add("rows of the fault table with the correct state at the end", "all", Some(words));
    let worst = |of: &dyn Fn(Fault) -> bool| {
        let rows = ours().filter(|(row, _)| of(row.fault));
        rows.map(|(_, assessed)| time(assessed)).max()
    };
    let figure_of = |worst: Option<Duration>, bar: Duration| {
        worst.filter(|time| *time < Duration::MAX).map(|time| (ms(time), time <= bar))
    };
    let bar = AGENT_INTER + GRACE;
    let plain = worst(&|fault| fault.notice(TIMEOUT).is_zero());
    bars.add("slowest row, except for the next three", &ms(bar), figure_of(plain, bar));
    for (fault, after) in [
        (Fault::AgentKilled, "then the health check beside it, `inter 1s fall 2`"),
        (Fault::PostgresHung, "the next probe, its timeout"),
        (Fault::PoolerReloaded, "the next login"),
    ] {
        let bar = bar + fault.notice(TIMEOUT);
        let figure = format!("{fault}: {after}, then the agent-check");
        bars.add(&figure, &ms(bar), figure_of(worst(&|of| of == fault), bar));
    }
    let is_ours = |each: &&Answers| each.name != BARE && !each.name.contains("blog");
    for each in measured.answering.answers.iter().filter(is_ours) {
        let (middle, late) = (each.latencies.within(0.5), each.latencies.within(0.99));
        let [fast, slow] = [Duration::from_micros(100), Duration::from_millis(1)];
        let name = format!("answer {}", each.name);
        bars.add(&format!("{name}: median"), "100 µs", Some((us(middle), middle <= fast)));
        bars.add(&format!("{name}: 99th percentile"), "1 ms", Some((us(late), late <= slow)));
    }
    let ratio = ratio(measured);
    let words = ratio.map(|ratio| (format!("1/{:.0}", 1.0 / ratio), ratio <= 1.0 / 20.0));
    bars.add(
        "CPU of all processes per check, as a share of that with the blog's daemon",
        "1/20",
        words,
    );
    let rest = measured.rest;
    let cpu = (format!("{:.2} %", rest.cores * 100.0), rest.cores <= 0.005);
    bars.add("at rest: of one core", "0.5 %", Some(cpu));
    let mib = rest.resident_bytes as f64 / 1048576.0;
    bars.add("at rest: memory", "15 MB", Some((format!("{mib:.1} MB"), mib <= 15.0)));
    bars.text()
}

fn faults(rows: &[Row]) -> String {
    let mut head = vec!["fault at the primary's node", "correct state"];
    head.extend(BACKENDS.map(|(_, name)| name));
    let mut table = Table::new(&head);
    for row in rows {
        let mut cells = vec![row.phase.to_owned(), row.right.clone()];
        cells.extend(row.judgements.iter().map(|assessed| match assessed {
            Assessment::Always => "always".to_owned(),
            Assessment::After(time) => ms(*time),
            Assessment::Never { status } => {
                format!("**wrong**: {status} after {:.0} s", row.looked.as_secs_f64())
            }
        }));
        table.row(cells);
    }
    table.text()
}

fn answers(all: &[Answers]) -> String {
    let mut table = Table::new(&["answer", "checks", "median", "99 %", "99.9 %", "slowest"]);
    for each in all {
        let within = |share| us(each.latencies.within(share));
        table.row(vec![
            each.name.to_owned(),
            each.latencies.count().to_string(),
            within(0.5),
            within(0.99),
            within(0.999),
            within(1.0),
        ]);
    }
    let notes: String = all
        .iter()
        .filter(|each| !each.note.is_empty())
        .fold(String::new(), |notes, each| notes + &format!("- *{}*: {}.\n", each.name, each.note));
    format!(
        "{PER_SECOND} checks a second, each with its own connection, from the connect to the end of the \
         answer, as an open loop: a\ncheck that starts late because of earlier ones counts from its \
         scheduled time. The client, the agent and a cluster of\none member share the machine. *{BARE}* \
         only accepts, reads, answers and closes; its times are\nthe machine's share.\n\n{}\n{notes}\
         - The {CROWD} clients are, in equal parts: half a line without an end, no data, a request whose \
         answer is never\n  read, and 64 kB of garbage. Each holds its connection for two seconds and \
         connects again. Their\n  thread runs at nice 19, because in production they are on other machines.\n",
        table.text()
    )
}

fn costs(measured: &Measured) -> String {
    let mut table = Table::new(&[
        "round",
        "pgsteer: all processes",
        "the agent",
        "blog's daemon: all processes",
        "the daemon",
    ]);
    for (round, (ours, blog)) in
        (1..).zip(measured.answering.pgsteer.iter().zip(&measured.answering.blog))
    {
        let mut cells = vec![format!("{round}")];
        for cost in [ours, blog] {
            cells.extend([cost.taking_part, cost.own].map(us));
        }
        table.row(cells);
    }
    let secs = measured.plan.time.as_secs();
    let (cores, mib) =
        (measured.rest.cores * 100.0, measured.rest.resident_bytes as f64 / 1048576.0);
    let rest = format!(
        "At rest, with three members and a check login, an agent uses {cores:.2} % of a core \
         and {mib:.1} MB,\nover {} s.\n",
        measured.plan.rest.as_secs()
    );
    format!(
        "CPU per check of all processes (the client, the agent, Patroni, PostgreSQL, etcd), less their \
         use without checks\nbut with the client's timer running, and of the agent alone. The figures \
         come from the scheduler's accounting, because\n/proc/stat counts ticks, and such short work falls \
         between them. {PER_SECOND} checks a second for pgsteer, {BLOG_PER_SECOND} for the\nblog's daemon \
         ({}), {secs} s each.\n\n{}\n{rest}",
        measured.answering.blog_words,
        table.text()
    )
}

/// The ratio of the medians over all rounds.
fn ratio(measured: &Measured) -> Option<f64> {
    let middle = |costs: &[Cost]| {
        let all: Vec<f64> = costs.iter().map(|cost| cost.taking_part.as_secs_f64()).collect();
        median(&all)
    };
    let (ours, blog) = (middle(&measured.answering.pgsteer)?, middle(&measured.answering.blog)?);
    (blog > 0.0 && ours > 0.0).then(|| ours / blog)
}

fn time(assessed: &Assessment) -> Duration {
    match assessed {
        Assessment::Always => Duration::ZERO,
        Assessment::After(time) => *time,
        Assessment::Never { .. } => Duration::MAX,
    }
}

fn ms(time: Duration) -> String {
    match time.as_millis() {
        0..1000 => format!("{} ms", time.as_millis()),
        _ => span(time.as_micros().try_into().unwrap_or(u64::MAX)),
    }
}

fn us(time: Duration) -> String {
    match time.as_micros() {
        1_000_000.. => format!("{:.2} s", time.as_secs_f64()),
        0..1_000 => format!("{} µs", time.as_micros()),
        _ => format!("{:.2} ms", time.as_secs_f64() * 1e3),
    }
}
