//! Scenarios: a script of the sources' answers, with the engine's output below each line.
//!
//! A line that begins in the first column belongs to the script. The indented lines below it are
//! the expected output, which the test compares with the actual output. The lines of a script:
//!
//! | line | meaning |
//! |---|---|
//! | `# ...` | a comment |
//! | `cluster patroni`, `listed n1 n2 ...` | the source of the member list |
//! | `patroni URL ...` | as `cluster patroni`, with these URLs |
//! | `pin [scope=S] [group=N] [system=N]` | the identity that is configured |
//! | `stored n1 n2=host:port ... [scope=S] [system=N] [age=60s]` | what an earlier run stored |
//! | `check`, `no check` | whether there is a check login |
//! | `split_brain block`, `split_brain highest_timeline` | the policy without Patroni |
//! | `patroni_loss_grace 60s`, `silence 30s` | limits |
//! | `service NAME ROLE [lag_bytes_max=N] [lag_max=5s] [hold=30s] [fallback] [pooler] [bypass] [tag.NAME=VALUE]` | a service |
//! | `no service NAME` | removes the service |
//! | `agent pooler`, `agent no pooler` | whether the agent's clients must use the pooler |
//! | `start` | ends the configuration: from here on the engine runs |
//! | `reload LINE` | one of the lines above, while the engine runs |
//! | `topology n1 n2=host:port ... [scope=S] [asked=T] [paused] [skipped=NAME]` | the answer of `/cluster` |
//! | `... [from=NAME] [as=NAME] [about.scope=S] [system=N]` | the member whose URL answered, and what its Patroni reports of itself |
//! | `n1 unlisted KIND [as=NAME] [about.scope=S] [system=N]` | the request for n1's `/cluster` fails with this |
//! | `n1 patroni [lock] STATE ROLE [timeline=N] [location=N] [replayed=N] ...` | see [`words`] |
//! | `n1 patroni late` | the request is late and still runs; with `asked=T` or `once` |
//! | `n1 tether primary/recovery [started=N]` | the role that the tether reports |
//! | `n1 progress primary/recovery [location=N] [timeline=N] [streaming] [age=2s] [ahead=-1s] [sessions=NOW/MAX]` | the answer of the progress query |
//! | `n1 pooler primary/recovery [started=N]`, `n1 pooler answers/refuses/nowhere/busy` | what a query through port 6432 reaches |
//! | `n1 addresses 10.0.0.1 ...` | the addresses of the host name |
//! | `n1 addresses of host-1:5432 10.0.0.1 ... once` | those of another host under which the list names n1 |
//! | `n1 patroni/tether/pooler/addresses failed KIND` | the probe fails |
//! | `etcd watched`, `etcd lost` | whether etcd is watched |
//! | `etcd order [n1] [to n2]`, `etcd no order` | the key `failover` as the watch reports it |
//! | `etcd written 3`, `etcd read [behind]` | this number of events; a read beside the watch |
//! | `etcd leader n1` | the key `leader` as the watch reports it |
//! | `n1 silent`, `n1 tether silent` | from here on neither an answer nor a failure |
//! | `order drain n1 [service=S] [until=5s] [why=TEXT] [force]`, `order undrain n1 [service=S]` | an operator's order; before `start`, one of an earlier run |
//! | `wait 5s`, `t=12.5` | time passes |
//! | `stall 90s` | time passes without a call of the engine: the process was stopped |
//! | `local NAME` | the member on pgsteer's own machine |
//! | `show` | prints the Snapshot and the plan |
//! | `listers` | prints the URLs that are asked for the member list now, not in turn |
//! | `settled` | whether every member has answered |
//! | `agent health/admin[/sessions] [LINE]` | prints the answer to HAProxy's agent-check |
//!
//! A source repeats its answer at each probe of the plan, until another line of the same member
//! and source. `once` at the end makes it a single answer, and `asked=T` makes it a single answer
//! to a probe that was sent at T.

pub mod driver;
pub mod show;
pub mod words;

use std::sync::Arc;

use pgsteer_core::claim::Topology;
use pgsteer_core::memory::Remembered;
use pgsteer_core::orders::DrainOrder;
use pgsteer_core::settings::{Config, Membership, SplitBrain};
use pgsteer_core::time::Moment;

use crate::cluster::{self, found, member, service_name};
use driver::{Driver, Source};

/// The outcome of a script: its text with the output below each line, and the engine's traces.
pub struct Outcome {
    pub text: String,
    pub config: Config,
    pub driver: Driver,
}

/// Runs a script and ignores the indented lines in it.
///
/// # Errors
/// A line that is not valid, with its number.
pub fn run(script: &str) -> Result<Outcome, String> {
    let mut play = Play {
        config: cluster::config(),
        stored: None,
        orders: Vec::new(),
        driver: None,
        events_printed: 0,
    };
    let mut text = String::new();
    for (index, line) in script.lines().enumerate() {
        if line.starts_with(' ') {
            continue;
        }
        let written = play.line(line).map_err(|err| format!("line {}: {err}", index + 1))?;
        text.push_str(line.trim_end());
        text.push('\n');
        for line in written {
            text.push_str("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    let driver = play.driver.ok_or("the script never starts")?;
    Ok(Outcome { text, config: play.config, driver })
}

struct Play {
    config: Config,
    stored: Option<Remembered>,
    orders: Vec<DrainOrder>,
    driver: Option<Driver>,
    events_printed: usize,
}

impl Play {
    fn line(&mut self, line: &str) -> Result<Vec<String>, String> {
        let tokens: Vec<&str> = line.split_whitespace().collect();
        match tokens.as_slice() {
            [] => return Ok(Vec::new()),
            [first, ..] if first.starts_with('#') => return Ok(Vec::new()),
            ["stored", rest @ ..] if self.driver.is_none() => {
                self.stored = Some(words::stored(rest)?);
                return Ok(Vec::new());
            }
            ["start"] if self.driver.is_none() => {
                let mut driver = Driver::new(&self.config, self.stored.take());
                driver.restore(std::mem::take(&mut self.orders));
                self.driver = Some(driver);
                return Ok(self.news());
            }
            ["order", "drain", rest @ ..] if self.driver.is_none() => {
                self.orders.push(words::drain(rest, Moment::START)?);
                return Ok(Vec::new());
            }
            _ => {}
        }
        let Some(driver) = &mut self.driver else {
            head(&mut self.config, &tokens)?;
            return Ok(Vec::new());
        };
        match tokens.as_slice() {
            ["show"] => return Ok(show::show(driver)),
            ["listers"] => return Ok(vec![show::listers(driver)]),
            ["settled"] => {
                let is_settled = driver.engine.snapshot().is_settled();
                return Ok(vec![if is_settled { "yes" } else { "not yet" }.to_owned()]);
            }
            ["agent", vocabulary, line @ ..] => {
                return Ok(vec![show::agent(driver, vocabulary, &line.join(" "))]);
            }
            ["reload", rest @ ..] => {
                if !rest.is_empty() {
                    head(&mut self.config, rest)?;
                }
                driver.reload(&self.config);
            }
            ["order", rest @ ..] => {
                let order = words::order(rest, driver.now)?;
                if let Err(refused) = driver.order(order) {
                    return Ok(vec![format!("refused: {refused}")]);
                }
            }
            rest => act(driver, rest)?,
        }
        Ok(self.news())
    }

    /// The events that have not been printed yet.
    fn news(&mut self) -> Vec<String> {
        let Some(driver) = &self.driver else {
            return Vec::new();
        };
        let news = driver.events[self.events_printed..].iter();
        let news = news.map(|event| format!("{} {}", event.at, event.kind)).collect();
        self.events_printed = driver.events.len();
        news
    }
}

/// A line of the configuration, before `start`.
fn head(config: &mut Config, tokens: &[&str]) -> Result<(), String> {
    let cluster = &mut config.cluster;
    match tokens {
        ["cluster", "patroni"] => cluster.members = cluster::patroni_at("http://n1:8008"),
        ["patroni", urls @ ..] => cluster.members = cluster::patroni_at_any(urls),
        ["pin", pins @ ..] => words::pin(cluster, pins)?,
        ["listed", members @ ..] => {
            cluster.members = Membership::Listed(words::members(members)?);
        }
        ["local", name] => cluster.here.name = Some(member(name)),
        ["check"] => cluster.check = Some(cluster::check()),
        ["no", "check"] => cluster.check = None,
        ["split_brain", "block"] => cluster.split_brain = SplitBrain::Block,
        ["split_brain", "highest_timeline"] => cluster.split_brain = SplitBrain::HighestTimeline,
        ["patroni_loss_grace", text] => cluster.patroni_loss_grace = words::duration(text)?,
        ["silence", text] => cluster.silence = words::duration(text)?,
        ["service", name, role, wishes @ ..] => {
            let service = words::service(role, wishes)?;
            config.services.insert(service_name(name), service);
        }
        ["agent", "pooler"] => config.agent = Some(show::agent_config(Some(words::POOLER_PORT))),
        ["agent", "no", "pooler"] => config.agent = Some(show::agent_config(None)),
        ["no", "service", name] => {
            config.services.remove(&service_name(name));
        }
        other => return Err(format!("not valid before `start`: {}", other.join(" "))),
    }
    Ok(())
}

/// A line after `start`.
fn act(driver: &mut Driver, tokens: &[&str]) -> Result<(), String> {
    match tokens {
        ["wait", text] => driver.advance(driver.now + words::duration(text)?),
        ["stall", text] => driver.stall(driver.now + words::duration(text)?),
        ["topology", rest @ ..] => {
            let topology = topology(driver, rest)?;
            driver.topology(topology);
        }
        [name, "unlisted", kind, about @ ..] => {
            driver.unlisted(words::unlisted(name, kind, about)?);
        }
        ["etcd", rest @ ..] => driver.notice(words::news(rest)?),
        [name, "silent"] => driver.silence(&member(name), None),
        [name, source, "silent"] => driver.silence(&member(name), Some(words::source(source)?)),
        [time] if time.starts_with("t=") => driver.advance(words::moment(&time[2..])?),
        [name, source, rest @ ..] => report(driver, name, words::source(source)?, rest)?,
        other => return Err(format!("not valid after `start`: {}", other.join(" "))),
    }
    Ok(())
}

fn report(driver: &mut Driver, name: &str, source: Source, rest: &[&str]) -> Result<(), String> {
    let name = member(name);
    let (asked_at, once, rest) = match rest {
        [rest @ .., "once"] => (driver.now, true, rest),
        [rest @ .., last] if last.starts_with("asked=") => {
            (words::moment(&last["asked=".len()..])?, true, rest)
        }
        rest => (driver.now, false, rest),
    };
    let fact = words::fact(&name, source, rest)?;
    match once {
        true => driver.answers_once(&name, fact, asked_at),
        false => driver.answers(&name, fact),
    }
    Ok(())
}

fn topology(driver: &Driver, tokens: &[&str]) -> Result<Topology, String> {
    let mut topology = cluster::topology(driver.now);
    if let Some(url) = driver.seeds.first() {
        topology.url = Arc::from(url.as_str());
    }
    for token in tokens {
        match token.split_once('=') {
            Some(("scope", scope)) => topology.scope = Some(scope.to_owned()),
            Some(("from", name)) => topology.url = words::url(name),
            Some((key @ ("about.scope" | "system" | "as"), value)) => {
                words::about(&mut topology.about, key, value)?;
            }
            Some(("skipped", name)) => {
                topology.skipped.push(format!("member {name} has no host yet"))
            }
            Some(("asked", text)) => topology.asked_at = words::moment(text)?,
            Some((name, postgres)) => topology.members.push(found(name, Some(postgres))),
            None if *token == "paused" => topology.paused = true,
            None => topology.members.push(found(token, None)),
        }
    }
    Ok(topology)
}
