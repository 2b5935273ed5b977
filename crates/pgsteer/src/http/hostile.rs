//! Hostile peers: no output contains a hidden character or an unbounded text from them.

use std::sync::Arc;
use std::time::Duration;

use pgsteer_config::file;
use pgsteer_core::claim::{Claim, Fact, Failure, Report, Speaker, Topology, Unlisted};
use pgsteer_core::engine::Engine;
use pgsteer_core::settings::Config;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::text::is_hidden;
use pgsteer_core::time::Moment;
use pgsteer_wire::error::{ErrorFields, read_error};
use pgsteer_wire::excerpt::excerpt;
use pgsteer_wire::patroni::{parse_cluster, parse_status};
use proptest::prelude::*;
use serde_json::json;

use super::compose::compose;
use super::metrics::{self, Facts};
use super::sample;
use crate::status::picture::draw;
use crate::status::table::Ink;

/// A text with any characters, and with those that no output may contain.
fn hostile() -> impl Strategy<Value = String> {
    let forged = "\n2026-11-27T14:42:22Z  WARN gate of n1 is open \u{1b}[31m\u{202e}\u{feff}\u{85}";
    (any::<String>(), any::<char>(), prop_oneof![Just(1), Just(1_000)])
        .prop_map(move |(text, c, times)| format!("{text}{c}{forged}").repeat(times))
}

fn config() -> Config {
    let text = "[patroni]\nurls = [\"http://n1\"]\n[check]\nuser = \"postgres\"\n";
    let (draft, errors) = file::read(text, "pgsteer.toml");
    draft.finish(errors).unwrap()
}

/// The Snapshot of an engine whose reports all come from hostile peers.
fn published(text: &str) -> Arc<Snapshot> {
    let mut engine = Engine::new(&config(), Moment::START);
    let at = |ms| Moment::from_millis(ms);
    let listed = |name: &str, host: &str| json!({"name": name, "host": host, "port": 5432, "api_url": format!("http://{text}/patroni")});
    let cluster = json!({
        "scope": text,
        "members": [listed("n1", "h1"), listed("n2", "h2"), listed(text, "h3"), listed("n4", text)],
    });
    let unlisted = Unlisted { asked: Arc::from("http://n1"), about: None, failure: network(text) };
    engine.handle_report(Report::Unlisted(unlisted), at(1));
    let cluster = parse_cluster(cluster.to_string().as_bytes()).unwrap();
    assert!(cluster.skipped.iter().all(|why| why.len() < 1_000 && !why.contains(is_hidden)));
    let members: Vec<_> = cluster.members.iter().map(|found| found.name.clone()).collect();
    let topology = Topology {
        url: Arc::from("http://n1"),
        about: Default::default(),
        skipped: Vec::new(),
        asked_at: at(2),
        scope: cluster.scope,
        paused: cluster.paused,
        members: cluster.members,
    };
    engine.handle_report(Report::Topology(topology), at(3));
    let status = json!({
        "state": text, "role": text, "replication_state": text, "timeline": 1,
        "xlog": {"location": 1, "replayed_location": 1}, "database_system_identifier": text,
        "tags": {text: text, "a": text}, "patroni": {"scope": format!("{text}2"), "name": text},
    });
    let facts = parse_status(false, status.to_string().as_bytes()).unwrap();
    for (member, fact) in members.iter().zip([
        Fact::Patroni(Ok(facts)),
        Fact::Patroni(Err(Failure::Malformed(Arc::from(excerpt(text.as_bytes()))))),
    ]) {
        let claim = Claim { member: member.clone(), asked_at: at(4), fact };
        engine.handle_report(Report::Claim(claim), at(5));
        for fact in [Fact::Tether(Err(refused(text))), Fact::Addresses(Err(network(text)))] {
            let claim = Claim { member: member.clone(), asked_at: at(6), fact };
            engine.handle_report(Report::Claim(claim), at(7));
        }
    }
    engine.snapshot()
}

fn network(text: &str) -> Failure {
    Failure::Network(Arc::from(text))
}

fn refused(text: &str) -> Failure {
    let body = format!("SFATAL\0C{}\0M{}\0\0", text.replace('\0', ""), text.replace('\0', ""));
    let (sqlstate, message) = read_error(body.as_bytes());
    assert!(sqlstate.len() <= 800 && message.len() <= 800, "at most 200 characters");
    Failure::LoginRefused {
        by: Speaker::postgres("n1:5432"),
        sqlstate: sqlstate.into(),
        message: message.into(),
    }
}

/// All outputs of `snapshot`.
fn outputs(snapshot: &Arc<Snapshot>) -> Vec<(&'static str, String)> {
    let document = compose(snapshot, &sample::stats(), &sample::past(), &sample::now());
    let facts = Facts {
        snapshot: Arc::clone(snapshot),
        stats: Arc::new(sample::stats()),
        now: Moment::from_millis(1_000),
        uptime: Duration::from_secs(1),
        heartbeat_age: Duration::ZERO,
    };
    let mut outputs = vec![
        ("status", serde_json::to_string(&document).unwrap()),
        ("page", draw(&document, Ink::Plain)),
        ("metrics", metrics::exposition(facts, metrics::Format::Open).unwrap()),
    ];
    for service in snapshot.services.keys() {
        let detail = snapshot.why_shut(service);
        let fields = ErrorFields { sqlstate: "57P03", message: "no", detail: &detail, hint: "" };
        let packet = fields.to_fatal();
        let texts: Vec<_> = packet[5..].split(|byte| *byte == 0).collect();
        outputs.push(("error", String::from_utf8(texts.concat()).unwrap()));
    }
    outputs.extend(snapshot.events.iter().map(|event| ("event", event.kind.to_string())));
    outputs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_output_hides_or_forges_anything(text in hostile()) {
        for (name, output) in outputs(&published(&text)) {
            let hidden = output.chars().find(|c| is_hidden(*c) && *c != '\n');
            prop_assert_eq!(hidden, None, "{}: {:?}", name, output);
            prop_assert!(output.len() < 64 * 1024, "{}: {} bytes", name, output.len());
            prop_assert!(!output.contains("\n2026-11-27T14:42:22Z"), "{}: {:?}", name, output);
        }
    }
}
