//! Scenarios: a script of what the sources say, with what the engine made of it beneath.
//!
//! A line that begins in the first column is the script's; the indented ones beneath it are
//! what happened, and are compared with what happens now. The words of the script:
//!
//! | line | meaning |
//! |---|---|
//! | `# ...` | a remark |
//! | `cluster patroni`, `listed n1 n2 ...` | where the members come from |
//! | `patroni URL ...` | the same as the first, with URLs of its own |
//! | `pin [scope=S] [group=N] [system=N]` | the identity that is configured |
//! | `stored n1 n2=host:port ... [scope=S] [system=N] [age=60s]` | what an earlier run stored |
//! | `check`, `no check` | whether there is a login for the tether |
//! | `split_brain block`, `split_brain highest_timeline` | the policy without Patroni |
//! | `patroni_loss_grace 60s`, `silence 30s` | limits |
//! | `service NAME ROLE [lag_bytes_max=N] [lag_max=5s] [hold=30s] [fallback] [pooler] [bypass] [tag.NAME=VALUE]` | a service |
//! | `no service NAME` | takes it away again |
//! | `agent pooler`, `agent no pooler` | whether the agent's clients have to take the pooler |
//! | `start` | ends the head: from here on the engine runs |
//! | `reload LINE` | one of the lines above, while the engine runs |
//! | `topology n1 n2=host:port ... [scope=S] [asked=T] [paused] [skipped=NAME]` | what `/cluster` tells |
//! | `... [from=NAME] [as=NAME] [about.scope=S] [system=N]` | by whose URL, and what that Patroni reports of itself |
//! | `n1 unlisted KIND [as=NAME] [about.scope=S] [system=N]` | n1 is asked for `/cluster` and fails so |
//! | `n1 patroni [lock] STATE ROLE [timeline=N] [location=N] [replayed=N] ...` | see [`words`] |
//! | `n1 patroni late` | the same has not been answered in time, and runs on; with `asked=T` or `once` |
//! | `n1 tether primary/recovery [started=N]` | what the tether feels |
//! | `n1 progress primary/recovery [location=N] [timeline=N] [streaming] [age=2s] [ahead=-1s] [sessions=NOW/MAX]` | by SQL |
//! | `n1 pooler primary/recovery [started=N]`, `n1 pooler answers/refuses/nowhere/busy` | what is at the other end of port 6432 |
//! | `n1 addresses 10.0.0.1 ...` | what the host name stands for |
//! | `n1 patroni/tether/pooler/addresses failed KIND` | the same, but there is no answer |
//! | `etcd watched`, `etcd lost` | whether etcd is watched |
//! | `etcd order [n1] [to n2]`, `etcd no order` | the key `failover` as the watch tells it |
//! | `etcd written 3`, `etcd read [behind]` | so many events; a read beside the watch |
//! | `etcd leader n1` | the key `leader`, the same |
//! | `n1 silent`, `n1 tether silent` | from here on no answer, and no failure either |
//! | `wait 5s`, `t=12.5` | time passes |
//! | `stall 90s` | time passes, but nobody wakes the engine: the process was stopped |
//! | `local NAME` | the member on whose machine pgsteer runs |
//! | `show` | prints the Snapshot and the plan |
//! | `settled` | whether everybody has been heard |
//! | `agent health/admin[/sessions] [LINE]` | prints what HAProxy's agent-check is answered |
//!
//! What a source says it goes on saying whenever the plan has it asked, until another line
//! of the same member and source comes. `once` at the end makes it a single answer, and
//! `asked=T` a single answer to a question that was sent at T.

pub mod driver;
pub mod show;
pub mod words;

use std::sync::Arc;

use pgsteer_core::claim::Topology;
use pgsteer_core::identity::Remembered;
use pgsteer_core::settings::{Config, Membership, SplitBrain};

use crate::cluster::{self, found, member, service_name};
use driver::{Driver, Source};

/// What a script did: its text with the outcome beneath each line, and the engine's traces.
pub struct Outcome {
    pub text: String,
    pub config: Config,
    pub driver: Driver,
}

/// Runs a script; the indented lines in it are left out.
///
/// # Errors
/// A line that cannot be read, with its number.
pub fn run(script: &str) -> Result<Outcome, String> {
    let mut play = Play { config: cluster::config(), stored: None, driver: None, events_told: 0 };
    let mut text = String::new();
    for (index, line) in script.lines().enumerate() {
        if line.starts_with(' ') {
            continue;
        }
        let told = play.line(line).map_err(|err| format!("line {}: {err}", index + 1))?;
        text.push_str(line.trim_end());
        text.push('\n');
        for line in told {
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
    driver: Option<Driver>,
    events_told: usize,
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
                self.driver = Some(Driver::new(&self.config, self.stored.take()));
                return Ok(self.news());
            }
            _ => {}
        }
        let Some(driver) = &mut self.driver else {
            head(&mut self.config, &tokens)?;
            return Ok(Vec::new());
        };
        match tokens.as_slice() {
            ["show"] => return Ok(show::show(driver)),
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
            rest => act(driver, rest)?,
        }
        Ok(self.news())
    }

    /// The events that nobody has been told of yet.
    fn news(&mut self) -> Vec<String> {
        let Some(driver) = &self.driver else {
            return Vec::new();
        };
        let news = driver.events[self.events_told..].iter();
        let news = news.map(|event| format!("{} {}", event.at, event.kind)).collect();
        self.events_told = driver.events.len();
        news
    }
}

/// A line of the head: something of the configuration.
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
        other => return Err(format!("no line of the head: {}", other.join(" "))),
    }
    Ok(())
}

/// A line of the play.
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
        [name, "silent"] => driver.hush(&member(name), None),
        [name, source, "silent"] => driver.hush(&member(name), Some(words::source(source)?)),
        [time] if time.starts_with("t=") => driver.advance(words::moment(&time[2..])?),
        [name, source, rest @ ..] => speak(driver, name, words::source(source)?, rest)?,
        other => return Err(format!("no line of the play: {}", other.join(" "))),
    }
    Ok(())
}

fn speak(driver: &mut Driver, name: &str, source: Source, rest: &[&str]) -> Result<(), String> {
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
        true => driver.says_once(&name, fact, asked_at),
        false => driver.says(&name, fact),
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
                topology.skipped.push(format!("member {name} tells no host yet"))
            }
            Some(("asked", text)) => topology.asked_at = words::moment(text)?,
            Some((name, postgres)) => topology.members.push(found(name, Some(postgres))),
            None if *token == "paused" => topology.paused = true,
            None => topology.members.push(found(token, None)),
        }
    }
    Ok(topology)
}
