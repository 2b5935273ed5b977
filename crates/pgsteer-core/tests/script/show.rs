//! The output of `show`: the Snapshot and the plan, in readable form.

use std::time::Duration;

use pgsteer_core::agent::answer;
use pgsteer_core::gate::Gate;
use pgsteer_core::names::MemberName;
use pgsteer_core::plan::{Ask, Plan, When};
use pgsteer_core::question::Question;
use pgsteer_core::reason::Reason;
use pgsteer_core::settings::defaults::NOWHERE;
use pgsteer_core::settings::{AgentConfig, Vocabulary, Weight};
use pgsteer_core::skew::ClockOffset;
use pgsteer_core::snapshot::{EtcdState, MemberState, PoolerState, Snapshot};

use super::driver::Driver;

/// The URLs that are asked for the member list now, and not in turn.
pub fn listers(driver: &Driver) -> String {
    let plan = driver.engine.plan();
    let always = plan.listers.iter().filter(|lister| lister.when == When::Always);
    let urls: Vec<String> = always.map(|lister| lister.url.to_string()).collect();
    if urls.is_empty() { "none".to_owned() } else { urls.join(" ") }
}

pub fn show(driver: &Driver) -> Vec<String> {
    let (snapshot, plan) = (driver.engine.snapshot(), driver.engine.plan());
    let mut lines = vec![heading(driver, &snapshot)];
    for (name, member) in &snapshot.members {
        lines.push(format!("{name:<6} {}", describe(name, member)));
    }
    let wrong = snapshot.url_troubles.iter();
    lines.extend(wrong.map(|(url, failure)| format!("url    {url}: {failure}")));
    lines.extend(paces(&plan));
    let orders = snapshot.orders.iter();
    lines.extend(orders.map(|order| format!("order  {} is {order}", order.target)));
    let nobody = snapshot.members.is_empty();
    let unserved = snapshot.services.keys().filter(|_| nobody);
    lines.extend(unserved.map(|name| format!("{name:<6} {}", snapshot.why_shut(name))));
    for (service, state) in &snapshot.services {
        for (name, gate) in &state.gates {
            lines.push(format!("{service:<6} {name:<4} {}", describe_gate(gate)));
        }
    }
    lines
}

/// The agent's answer to a client. An empty line means that the client sent none.
pub fn agent(driver: &Driver, vocabulary: &str, line: &str) -> String {
    let mut words_of_it = vocabulary.split('/');
    let vocabulary = words_of_it.next().unwrap_or_default();
    let weight = match words_of_it.next() {
        None => Weight::Lag,
        Some("sessions") => Weight::Sessions,
        Some(other) => panic!("no agent: {other}"),
    };
    let all = [Vocabulary::Health, Vocabulary::Admin, Vocabulary::Bare];
    let vocabulary = all.into_iter().find(|it| it.as_str() == vocabulary).unwrap();
    let config = AgentConfig { vocabulary, weight, ..agent_config(None) };
    let line = Some(line).filter(|line| !line.is_empty());
    let answer = answer(
        &config,
        &driver.engine.snapshot(),
        line,
        &mut driver.served.lock().unwrap(),
        driver.now,
    );
    if answer.is_empty() { "(no answer)".to_owned() } else { answer }
}

/// The configuration of an agent without clients.
pub fn agent_config(pooler_port: Option<u16>) -> AgentConfig {
    AgentConfig {
        listen: NOWHERE,
        vocabulary: Vocabulary::Health,
        default: Question::read("primary", |_| false).unwrap(),
        pooler_port,
        line_wait: Duration::ZERO,
        awaits_first_line: true,
        weight: Weight::Unsaid,
        maxconn: None,
    }
}

fn heading(driver: &Driver, snapshot: &Snapshot) -> String {
    let scope = snapshot.scope.as_ref().map(|scope| format!(", scope {scope}")).unwrap_or_default();
    let paused = if snapshot.paused { ", paused" } else { "" };
    let etcd = match &snapshot.etcd {
        None => String::new(),
        Some(EtcdState { watch: Ok(()), is_behind: true, .. }) => ", etcd behind".to_owned(),
        Some(EtcdState { watch: Ok(()), .. }) => ", etcd watched".to_owned(),
        Some(EtcdState { watch: Err(failure), .. }) => format!(", etcd lost ({failure})"),
    };
    let counted = snapshot.etcd.as_ref().map(|etcd| {
        let read = etcd.read_at.map(|at| format!(", read at {at}")).unwrap_or_default();
        let events = (etcd.events > 0).then(|| format!(", {} events", etcd.events));
        events.unwrap_or_default() + &read
    });
    let etcd = etcd + &counted.unwrap_or_default();
    format!("at {}{scope}{paused}{etcd}", driver.now)
}

fn describe(name: &MemberName, member: &MemberState) -> String {
    let mut words = vec![member.role.to_string()];
    words.extend(member.timeline.map(|timeline| format!("timeline {timeline}")));
    words.extend(member.lag_bytes.map(|bytes| format!("{bytes} bytes behind")));
    words.extend(member.lag.map(|lag| format!("{lag:?} behind")));
    let clock = |offset: ClockOffset| format!("clock {:+} s", offset.as_secs_f64());
    words.extend(member.clock_offset.map(clock));
    words.extend(member.load_percent.map(|percent| format!("{percent} % full")));
    if member.postgres.host() != name.as_str() {
        words.push(format!("at {}", member.postgres));
    }
    words.extend(member.address_failure.as_ref().map(ToString::to_string));
    words.extend(member.trouble.as_ref().map(with_code));
    words.extend(member.poolers.iter().map(|(port, pooler)| describe_pooler(*port, pooler)));
    words.join(", ")
}

fn describe_pooler(port: u16, pooler: &PoolerState) -> String {
    match (&pooler.trouble, pooler.leads_to) {
        (Some(trouble), _) => with_code(trouble),
        (None, Some(role)) => format!("pooler on {port} leads to a {role}"),
        (None, None) => format!("pooler on {port} answers"),
    }
}

fn describe_gate(gate: &Gate) -> String {
    let sessions = match gate {
        Gate::Shut { .. } if gate.ends_sessions() => ", sessions end",
        Gate::Open(_) if gate.bypasses_pooler() => ", past the pooler",
        _ => "",
    };
    let reason = gate.reason().map(|reason| format!(": {}", with_code(reason))).unwrap_or_default();
    format!("{} since {}{sessions}{reason}", gate.state(), gate.since())
}

fn with_code(reason: &Reason) -> String {
    format!("[{}] {reason}", reason.code())
}

/// The probe intervals of the members. Members with equal intervals share a line.
fn paces(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for (name, ask) in &plan.members {
        let pace = pace(ask);
        match lines.iter_mut().find(|(known, _)| *known == pace) {
            Some((_, names)) => names.push(name.to_string()),
            None => lines.push((pace, vec![name.to_string()])),
        }
    }
    lines.into_iter().map(|(pace, names)| format!("ask    {}: {pace}", names.join(" "))).collect()
}

fn pace(ask: &Ask) -> String {
    let short = |duration: Duration| format!("{duration:?}");
    let pace = &ask.pace;
    let poolers = match ask.poolers.is_empty() {
        true => String::new(),
        false => format!(", poolers every {}", short(pace.pooler)),
    };
    format!("tether every {}, Patroni every {}{poolers}", short(pace.tether), short(pace.patroni))
}
