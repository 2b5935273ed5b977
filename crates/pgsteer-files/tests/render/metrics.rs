//! What the alerts and the dashboard ask for is what /metrics has, and the dashboard is one that
//! Grafana loads.

use std::collections::{BTreeMap, BTreeSet};

use pgsteer_core::reason::Reason;
use pgsteer_files::render::Kind;
use serde_json::Value;

use crate::around::{doors, made};
use crate::clusters::three;

/// The page that pgsteer's own tests hold against what it writes.
const PAGE: &str = include_str!(
    "../../../pgsteer/src/http/metrics/snapshots/pgsteer__http__metrics__tests__the_metrics_of_a_cluster_in_the_middle_of_a_switchover.snap"
);
/// The page that pgsteer's own tests compare with the status document.
const STATUS: &str = include_str!("../../../../docs/status.md");
/// What Prometheus adds to every sample.
const ADDED: [&str; 2] = ["instance", "job"];

/// The names of /metrics, each with its labels.
fn exported() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in PAGE.lines().filter(|line| line.starts_with("pgsteer_")) {
        let (name, labels) = line.split_once(['{', ' ']).unwrap();
        let labels = labels.split("=\"").filter_map(|it| it.rsplit(['{', ',']).next());
        all.entry(name).or_default().extend(labels.filter(|it| is_word(it)));
    }
    assert!(all["pgsteer_sessions"].contains("member"), "{all:?}");
    all
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// The words of pgsteer's metrics in a query.
fn asked(query: &str) -> Vec<&str> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("pgsteer_")).collect()
}

/// The labels in braces, as `service` of `{service="write"}`, and those behind `by`.
fn selected(query: &str) -> Vec<&str> {
    let in_braces = query.split('{').skip(1).filter_map(|it| it.split('}').next());
    let matched =
        in_braces.flat_map(|it| it.split(',')).filter_map(|it| it.split(['!', '=']).next());
    let behind_by = query.split("by (").skip(1).filter_map(|it| it.split(')').next());
    matched.chain(behind_by.flat_map(|it| it.split(','))).map(str::trim).collect()
}

/// Every metric in `query` is there, with every label.
fn ensure_exported(query: &str, labels: &[&str]) {
    let exported = exported();
    let names = asked(query);
    assert!(!names.is_empty(), "{query} asks for nothing of pgsteer's");
    for name in names {
        let has = exported.get(name).unwrap_or_else(|| panic!("{query}: there is no {name}"));
        let wanted = labels.iter().filter(|label| !ADDED.contains(label));
        let missing: Vec<_> = wanted.filter(|label| !has.contains(*label)).collect();
        assert!(missing.is_empty(), "{query}: {name} has no {missing:?}");
    }
}

#[test]
fn the_alerts_ask_for_metrics_that_there_are() {
    let rules = &made(Kind::Prometheus, &three(), &doors())[0].text;
    let queries = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let mut count = 0;
    for query in queries {
        let query = query.trim_matches(['"', '\'']).replace("\\\"", "\"");
        // `up` is Prometheus' own.
        for part in query.split(" or ").filter(|part| !part.starts_with("up{")) {
            ensure_exported(part, &selected(part));
        }
        count += 1;
    }
    assert_eq!(count, rules.matches("- alert:").count());
}

/// The fields of the status document that show a degraded state, each with the alert for it.
const DEGRADED: [(&str, &str); 11] = [
    ("clock_offset_seconds", "PgsteerClockOffset"),
    ("etcd_behind", "PgsteerEtcdLost"),
    ("etcd_trouble", "PgsteerEtcdLost"),
    ("members_age_seconds", "PgsteerNoMemberList"),
    ("members_trouble", "PgsteerNoMemberList"),
    ("no_failover", "PgsteerWriteUnserved"),
    ("other_clusters", "PgsteerWrongUrl"),
    ("paused", "PgsteerMaintenanceMode"),
    ("rogue", "PgsteerRoguePrimary"),
    ("trouble", "PgsteerMemberTrouble"),
    ("url_troubles", "PgsteerWrongUrl"),
];

/// No alert: the last addresses are used, and a host without one is the member's `trouble`.
const NO_ALERT: &str = "address_trouble";

/// All fields of the document that report a problem are in the list above.
#[test]
fn there_is_an_alert_for_each_degraded_state_of_the_status_document() {
    let rules = &made(Kind::Prometheus, &three(), &doors())[0].text;
    for (field, alert) in DEGRADED {
        let line = format!("- alert: {alert}");
        let quoted = format!("- alert: \"{alert}\"");
        assert!(rules.contains(&line) || rules.contains(&quoted), "{field}: no {alert}");
        assert!(STATUS.contains(&format!("| `{field}` |")), "there is no field {field}");
    }
    for row in STATUS.lines().filter_map(|line| line.strip_prefix("| `")) {
        let field = row.split('`').next().unwrap();
        let is_metric = field.starts_with("pgsteer_");
        let is_listed = is_metric || DEGRADED.iter().any(|(listed, _)| *listed == field);
        assert!(
            is_listed || field == NO_ALERT || !field.contains("trouble"),
            "no alert is named for {field}"
        );
    }
}

/// A member's reason raises the general alert unless it has one of its own; a pooler's likewise.
#[test]
fn there_is_an_alert_for_each_reason() {
    let rules = &made(Kind::Prometheus, &three(), &doors())[0].text;
    let expressions: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    let general = "pgsteer_member_trouble == 1 unless pgsteer_member_trouble{reason=~";
    let general = expressions.iter().find(|it| it.contains(general)).unwrap();
    for code in Reason::CODES {
        let own = format!("pgsteer_member_trouble{{reason=\"{code}\"}} == 1");
        let is_excepted = general.split(['"', '|']).any(|word| word == *code);
        assert_eq!(is_excepted, expressions.contains(&&*own), "{code}");
    }
    // A reason of a pooler that exists only while its server is unusable is covered by the server's alert.
    assert!(expressions.contains(&"pgsteer_pooler_trouble{reason!=\"pooler_not_asked\"} == 1"));
}

fn dashboard() -> Value {
    serde_json::from_str(&made(Kind::Grafana, &three(), &doors())[0].text).unwrap()
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    for panel in dashboard()["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let legend = target["legendFormat"].as_str().unwrap();
            let shown = legend.split("{{").skip(1).filter_map(|it| it.split("}}").next());
            let labels: Vec<&str> = selected(query).into_iter().chain(shown).collect();
            ensure_exported(query, &labels);
        }
    }
}

/// By the schema of dashboards, Grafana 10: what it refuses, or would show in each other's place.
#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let dashboard = dashboard();
    assert_eq!(dashboard["schemaVersion"], 38);
    let uid = dashboard["uid"].as_str().unwrap();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    assert!((1..=40).contains(&uid.len()) && uid.chars().all(fits), "{uid}");
    assert!(!dashboard["title"].as_str().unwrap().is_empty());
    // An id of its own would be that of another dashboard of that Grafana.
    assert!(dashboard.get("id").is_none());
    let variable = &dashboard["templating"]["list"][0];
    assert_eq!(
        (&variable["type"], &variable["query"]),
        (&"datasource".into(), &"prometheus".into())
    );
    let source = format!("${{{}}}", variable["name"].as_str().unwrap());
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels of one id: {panel}");
        assert_eq!(panel["type"], "timeseries");
        assert_eq!(panel["datasource"]["type"], "prometheus");
        assert_eq!(panel["datasource"]["uid"], *source);
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("w") > 0 && at("h") > 0 && at("x") + at("w") <= 24, "{panel}");
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| {
            let (top, height) = (at("y"), at("h"));
            (top..top + height).map(move |y| (x, y))
        }) {
            assert!(cells.insert((x, y)), "two panels at one place: {panel}");
        }
        let letters: Vec<&str> = panel["targets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["refId"].as_str().unwrap())
            .collect();
        assert!(
            !letters.is_empty() && letters.iter().collect::<BTreeSet<_>>().len() == letters.len()
        );
    }
    assert!(!panels.is_empty());
}
