//! Patroni's JSON: the bodies of `GET /primary` and `GET /cluster`.
//!
//! One request returns two facts. Patroni answers every health endpoint through one method that
//! writes the same body as `/patroni`, and only the status code depends on the path (`api.py`,
//! `do_GET` and `_write_status_response`; read in 3.0.2 and 4.1.5, and compared with both answers
//! on a running cluster). So `GET /primary` returns the leader lock in its status code and
//! PostgreSQL's condition in its body.
//!
//! The meaning of the status code (`do_GET`, same versions):
//! - 200 if Patroni holds the leader lock by its own clock (`ha.is_leader`) and the cluster is not
//!   a standby cluster. Patroni does not check PostgreSQL for this: it returns 200 even while
//!   PostgreSQL is down.
//! - In maintenance mode without a DCS there is no lock to check: 200 if the role in the body is
//!   the primary's. Patroni remembers that role from before if PostgreSQL is down.
//! - 503 otherwise, also on the leader of a standby cluster.
//!
//! The meaning of the body (`get_postgresql_status`): if PostgreSQL answered Patroni's query, the
//! body has `xlog`, and `role` is the result of `pg_is_in_recovery()`. If not, `role` is the last
//! one that Patroni remembers, which is `master` or `primary` for a stopped primary, and there is
//! no `xlog`. A remembered role is not a fact about PostgreSQL, so it is [`Role::Unknown`] here.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use thiserror::Error;

use crate::excerpt::excerpt;
use pgsteer_core::claim::{Found, PatroniFacts, Role, Standby, TagFlags, Tags};
use pgsteer_core::names::{Endpoint, MemberName, POSTGRES_PORT};
use pgsteer_core::text::{OutsideText, clean, clean_to};

/// The maximum number of characters of a tag's name and of its value.
pub const TAG_CHARS_MAX: usize = 64;

/// The maximum number of tags of one member.
pub const TAGS_MAX: usize = 64;

/// The maximum number of characters of a REST address.
const URL_CHARS_MAX: usize = 512;

/// The tags with a meaning for Patroni itself (documentation, "YAML Configuration", `tags`).
const PATRONI_TAGS: [&str; 8] = [
    "clonefrom",
    "failover_priority",
    "nofailover",
    "noloadbalance",
    "nostream",
    "nosync",
    "replicatefrom",
    "sync_priority",
];

/// The reason why a body is not Patroni's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadBody {
    /// It is not a JSON object of the expected shape.
    #[error("{error}, in `{excerpt}`")]
    NotJson {
        /// The parser's message.
        error: String,
        /// The beginning of the body.
        excerpt: String,
    },
    /// It has no `state`.
    #[error("no `state` in `{0}`")]
    NoState(String),
    /// It has no `members`.
    #[error("no `members` in `{0}`")]
    NoMembers(String),
}

/// The members that `/cluster` lists, with and without an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Patroni's scope; 4.0 and later.
    pub scope: Option<String>,
    /// Patroni is in maintenance mode.
    pub paused: bool,
    /// The members with an address.
    pub members: Vec<Found>,
    /// The members without an address, each with the reason: a member that has just joined has
    /// reported no `conn_url` yet, so it has no host.
    pub skipped: Vec<String>,
}

/// Parses the body of `GET /primary`; `holds_lock` is true if the status was 200.
///
/// A field that is missing or has an unexpected type is unknown and not an error. The exception is
/// `state`: every Patroni returns it, and it identifies the body as Patroni's.
///
/// # Errors
/// The body is not a JSON object, or has no `state`.
pub fn parse_status(holds_lock: bool, body: &[u8]) -> Result<PatroniFacts, BadBody> {
    let status: StatusBody = from_json(body)?;
    let state = status.state.ok_or_else(|| BadBody::NoState(excerpt(body)))?;
    let role = match (&status.xlog, &status.role) {
        (Some(_), Some(word)) => Role::from_patroni(word.as_str()),
        _ => Role::Unknown,
    };
    let xlog = status.xlog.unwrap_or_default();
    let patroni = status.patroni.unwrap_or_default();
    let tag_values = status.tags.unwrap_or_default();
    Ok(PatroniFacts {
        holds_lock,
        state: state.into(),
        role,
        timeline: status.timeline,
        location: xlog.location,
        replayed_location: xlog.replayed_location,
        replication_state: status.replication_state.map(String::from),
        standby: match (status.sync_standby, status.quorum_standby) {
            (Some(true), _) => Standby::Sync,
            (_, Some(true)) => Standby::Quorum,
            _ => Standby::Async,
        },
        flags: flags(&tag_values),
        tags: tags(tag_values),
        paused: status.pause.unwrap_or_default(),
        name: patroni.name.map(String::from),
        scope: patroni.scope.map(String::from),
        system_identifier: status.database_system_identifier.map(String::from),
    })
}

/// Parses the body of `GET /cluster` (`cluster_as_json` of Patroni's `utils.py`).
///
/// # Errors
/// The body is not a JSON object, or has no list of `members`.
pub fn parse_cluster(body: &[u8]) -> Result<Cluster, BadBody> {
    let listed: ClusterBody = from_json(body)?;
    let members = listed.members.ok_or_else(|| BadBody::NoMembers(excerpt(body)))?;
    let paused = listed.pause.unwrap_or_default();
    let scope = listed.scope.map(String::from);
    let mut cluster = Cluster { scope, paused, ..Cluster::default() };
    for member in members {
        match found(member) {
            Ok(found) => cluster.members.push(found),
            Err(reason) => cluster.skipped.push(reason),
        }
    }
    Ok(cluster)
}

#[derive(Deserialize)]
struct StatusBody {
    #[serde(default, deserialize_with = "lenient")]
    state: Option<OutsideText>,
    #[serde(default, deserialize_with = "lenient")]
    role: Option<OutsideText>,
    #[serde(default, deserialize_with = "lenient")]
    timeline: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    xlog: Option<Xlog>,
    #[serde(default, deserialize_with = "lenient")]
    replication_state: Option<OutsideText>,
    #[serde(default, deserialize_with = "lenient")]
    sync_standby: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    quorum_standby: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    tags: Option<serde_json::Map<String, Value>>,
    #[serde(default, deserialize_with = "lenient")]
    pause: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    database_system_identifier: Option<OutsideText>,
    #[serde(default, deserialize_with = "lenient")]
    patroni: Option<About>,
}

#[derive(Default, Deserialize)]
struct Xlog {
    #[serde(default, deserialize_with = "lenient")]
    location: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    replayed_location: Option<u64>,
}

#[derive(Default, Deserialize)]
struct About {
    #[serde(default, deserialize_with = "lenient")]
    scope: Option<OutsideText>,
    #[serde(default, deserialize_with = "lenient")]
    name: Option<OutsideText>,
}

#[derive(Deserialize)]
struct ClusterBody {
    #[serde(default, deserialize_with = "lenient")]
    scope: Option<OutsideText>,
    #[serde(default, deserialize_with = "lenient")]
    pause: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    members: Option<Vec<MemberBody>>,
}

#[derive(Deserialize)]
struct MemberBody {
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    host: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    port: Option<u16>,
    #[serde(default, deserialize_with = "lenient")]
    api_url: Option<String>,
}

/// Treats a value of the wrong type as a missing one.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value<T> {
        Expected(T),
        Other(IgnoredAny),
    }
    Ok(match Value::deserialize(deserializer)? {
        Value::Expected(value) => Some(value),
        Value::Other(_) => None,
    })
}

fn from_json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, BadBody> {
    // serde also reads a struct from a JSON list, which Patroni never sends.
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    let not_json = |error: &str| {
        // The parser's message may repeat a whole text of the body.
        BadBody::NotJson { error: clean(error).into_owned(), excerpt: excerpt(body) }
    };
    if !is_object {
        return Err(not_json("no JSON object"));
    }
    serde_json::from_slice(body).map_err(|err| not_json(&err.to_string()))
}

fn found(member: MemberBody) -> Result<Found, String> {
    let name = member.name.ok_or("a member without a name")?;
    let name = MemberName::new(&name).map_err(|err| format!("member `{}`: {err}", clean(&name)))?;
    let host = member.host.ok_or_else(|| format!("member {name} has no host yet"))?;
    let postgres = Endpoint::new(&host, member.port.unwrap_or(POSTGRES_PORT))
        .map_err(|err| format!("member {name}: {err}"))?;
    Ok(Found { name, postgres, patroni_url: member.api_url.as_deref().map(base_url) })
}

/// Returns the base of `api_url`, which ends with the path `/patroni`. A URL is cleaned and
/// truncated like any text. A URL that had to be cleaned cannot be requested, and the request
/// reports that.
fn base_url(api_url: &str) -> Arc<str> {
    let base = api_url.trim_end_matches('/');
    let base = base.strip_suffix("/patroni").unwrap_or(base);
    Arc::from(clean_to(base.trim_end_matches('/'), URL_CHARS_MAX))
}

/// Returns the flags among the tags, converted as Patroni converts them (`tags.py`, read in 4.1.5;
/// older versions differ in nothing that matters here). `noloadbalance` is converted by Python's
/// `bool`, so that `1`, `"yes"` and even `"false"` set it; the newer `nostream` by Patroni's own
/// `parse_bool`.
fn flags(tags: &serde_json::Map<String, Value>) -> TagFlags {
    TagFlags {
        no_load_balance: tags.get("noloadbalance").is_some_and(is_truthy),
        no_stream: tags.get("nostream").is_some_and(is_on),
    }
}

/// Python's `bool(value)` of a JSON value.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Patroni's `parse_bool(value)` (`utils.py`): everything except these four words is false.
fn is_on(value: &Value) -> bool {
    let text = match value {
        Value::String(text) => text.to_lowercase(),
        other => other.to_string(),
    };
    matches!(text.as_str(), "on" | "true" | "yes" | "1")
}

/// Returns tag values as the text that Patroni itself compares with a `tag_...` of a query: a
/// number or `true` as JSON writes it (`api.py`, end of `do_GET`).
///
/// A name and a value have at most [`TAG_CHARS_MAX`] characters. Of more than [`TAGS_MAX`] tags,
/// those with a meaning for Patroni are kept, then the first by name.
fn tags(map: serde_json::Map<String, Value>) -> Tags {
    let texts = map.into_iter().filter_map(|(name, value)| match value {
        Value::String(text) => Some((name, text)),
        Value::Bool(_) | Value::Number(_) => Some((name, value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    });
    let (known, own): (Vec<_>, Vec<_>) =
        texts.partition(|(name, _)| PATRONI_TAGS.contains(&name.as_str()));
    let cleaned = |text: String| clean_to(&text, TAG_CHARS_MAX).into_owned();
    let kept = known.into_iter().chain(own).take(TAGS_MAX);
    kept.map(|(name, value)| (cleaned(name), cleaned(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies from a running cluster; the version is Patroni's.
    macro_rules! body {
        ($name:literal) => {
            include_bytes!(concat!("bodies/", $name, ".json"))
        };
    }

    #[test]
    fn the_roles_master_and_primary_both_mean_primary() {
        for body in [&body!("3.0.2-primary")[..], &body!("4.1.5-primary")[..]] {
            let facts = parse_status(true, body).unwrap();
            assert!(facts.holds_lock && facts.is_running() && !facts.paused);
            assert_eq!(facts.role, Role::Primary);
            assert!(facts.timeline.is_some() && facts.location.is_some());
            assert_eq!(facts.replayed_location, None);
            assert_eq!(facts.scope.as_deref(), Some("demo"));
            assert!(facts.system_identifier.is_some());
        }
    }

    #[test]
    fn a_replica_reports_its_replay_and_a_new_one_reports_that_it_streams() {
        let old = parse_status(false, body!("3.0.2-replica")).unwrap();
        let new = parse_status(false, body!("4.1.5-replica")).unwrap();
        for facts in [&old, &new] {
            assert_eq!(facts.role, Role::Replica);
            assert!(facts.is_running() && !facts.holds_lock);
            assert!(facts.replayed_location.is_some());
            assert_eq!(facts.location, None);
        }
        assert_eq!(old.replication_state, None);
        assert_eq!(new.replication_state.as_deref(), Some("streaming"));
    }

    #[test]
    fn a_lock_on_a_server_that_is_still_in_recovery_is_no_primary() {
        let facts = parse_status(true, body!("3.0.2-promoting")).unwrap();
        assert!(facts.holds_lock && facts.is_running());
        assert_eq!(facts.role, Role::Replica);
    }

    #[test]
    fn the_role_that_patroni_remembers_of_a_dead_server_is_ignored() {
        let dead = [
            (&body!("3.0.2-crashed")[..], "unknown"),
            (&body!("4.1.5-crashed")[..], "unknown"),
            (&body!("3.0.2-stopped")[..], "stopped"),
            (&body!("4.1.5-stopped")[..], "stopped"),
        ];
        for (body, state) in dead {
            let facts = parse_status(true, body).unwrap();
            assert_eq!(facts.role, Role::Unknown);
            assert_eq!(facts.state, state);
            assert!(!facts.is_running());
        }
    }

    #[test]
    fn maintenance_mode_is_seen() {
        assert!(parse_status(true, body!("3.0.2-paused")).unwrap().paused);
        assert!(parse_status(true, body!("4.1.5-paused")).unwrap().paused);
    }

    #[test]
    fn tags_are_texts() {
        let facts = parse_status(true, body!("4.1.5-primary")).unwrap();
        let expected = [("dc", "north"), ("weight", "1.5")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(facts.tags, Tags::from(expected));

        let odd = br#"{"state": "running", "tags": {"noloadbalance": true, "x": null, "y": []}}"#;
        let tags = parse_status(true, odd).unwrap().tags;
        assert_eq!(tags, Tags::from([("noloadbalance".to_owned(), "true".to_owned())]));
    }

    #[test]
    fn flags_are_converted_as_patroni_converts_them() {
        let flags = |value: &str| {
            let tags = format!("{{\"noloadbalance\": {value}, \"nostream\": {value}}}");
            let body = format!("{{\"state\": \"running\", \"tags\": {tags}}}");
            let TagFlags { no_load_balance, no_stream } =
                parse_status(false, body.as_bytes()).unwrap().flags;
            (no_load_balance, no_stream)
        };
        for both in ["true", "1", "\"yes\"", "\"on\"", "\"True\"", "\"1\""] {
            assert_eq!(flags(both), (true, true), "{both}");
        }
        for neither in ["false", "0", "0.0", "-0.0", "\"\"", "null", "[]", "{}"] {
            assert_eq!(flags(neither), (false, false), "{neither}");
        }
        // Python treats any text that is not empty as true, and Patroni treats "no" as false.
        for differs in
            ["\"false\"", "\"no\"", "\"off\"", "\"0\"", "2", "-1", "[0]", "{\"a\": 0}", "\" \""]
        {
            assert_eq!(flags(differs), (true, false), "{differs}");
        }
        let none = parse_status(false, br#"{"state": "running"}"#).unwrap();
        assert_eq!(none.flags, TagFlags::default());
    }

    #[test]
    fn texts_are_cleaned_and_cut_and_a_tag_that_matters_is_kept_among_many() {
        let tags: Vec<String> = (0..40_000).map(|n| format!("\"t{n:05}\": \"v\"")).collect();
        let body = format!(
            r#"{{"state": "{}", "replication_state": "x\n\u001b[31m\u202e", "tags":
                {{{}, "noloadbalance": true, "a\u0000": "{}"}}, "patroni": {{"scope": "a\u2028b"}}}}"#,
            "s".repeat(300_000),
            tags.join(","),
            "ü".repeat(65),
        );
        let facts = parse_status(false, body.as_bytes()).unwrap();
        assert_eq!(facts.state, format!("{}...", "s".repeat(197)));
        assert_eq!(facts.replication_state.as_deref(), Some("x\\n\\u{1b}[31m\\u{202e}"));
        assert_eq!(facts.scope.as_deref(), Some("a\\u{2028}b"));
        assert_eq!(facts.tags.len(), TAGS_MAX);
        assert_eq!(facts.tags["noloadbalance"], "true");
        assert_eq!(facts.tags["a\\u{0}"], format!("{}...", "ü".repeat(61)));
    }

    #[test]
    fn a_parsers_message_does_not_repeat_the_whole_body() {
        let body =
            format!(r#"{{"state": "running", "tags": {{}} "{}\u001b" }}"#, "x".repeat(900_000));
        let error = parse_status(false, body.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 500, "{} bytes", error.len());
    }

    #[test]
    fn what_is_missing_or_of_the_wrong_type_is_unknown() {
        let body = br#"{"state": "running", "role": 7, "timeline": "unknown", "xlog":
            {"location": "0/3000000", "replayed_location": -1}, "tags": [1], "pause": "yes",
            "patroni": "4.1.5", "database_system_identifier": 5, "new_in_9.0": {"a": [{}]}}"#;
        let facts = parse_status(false, body).unwrap();
        assert_eq!((facts.role, facts.timeline), (Role::Unknown, None));
        assert_eq!((facts.location, facts.replayed_location), (None, None));
        assert!(facts.tags.is_empty() && !facts.paused);
        assert_eq!((facts.scope, facts.system_identifier), (None, None));
    }

    #[test]
    fn a_body_that_is_not_patronis_is_refused_with_its_beginning() {
        let not_json = parse_status(true, b"<html>\n<h1>It works!</h1>").unwrap_err();
        assert!(not_json.to_string().contains("`<html>.<h1>It works!</h1>`"), "{not_json}");
        for body in [&b""[..], b"[]", b"[\"running\"]", b"{}", b"{\"state\": 1}", b"\xff\xfe", b"{"]
        {
            assert!(parse_status(true, body).is_err(), "{body:?}");
            assert!(parse_cluster(body).is_err(), "{body:?}");
        }
        let deep = "[".repeat(100_000);
        let deep = format!("{{\"state\": \"running\", \"tags\": {deep}");
        assert!(parse_status(true, deep.as_bytes()).is_err());
    }

    #[test]
    fn the_members_are_found_with_their_addresses() {
        let old = parse_cluster(body!("3.0.2-cluster")).unwrap();
        let new = parse_cluster(body!("4.1.5-cluster")).unwrap();
        assert_eq!((old.scope.as_deref(), new.scope.as_deref()), (None, Some("demo")));
        for (cluster, net) in [(old, 53), (new, 54)] {
            let shown: Vec<String> = cluster
                .members
                .iter()
                .map(|m| format!("{} {} {}", m.name, m.postgres, m.patroni_url.as_ref().unwrap()))
                .collect();
            let expected =
                [1, 2].map(|i| format!("pg{i} 127.0.{net}.{i}:25432 http://127.0.{net}.{i}:8008"));
            assert_eq!(shown, expected);
            assert_eq!(cluster.skipped, [""; 0]);
        }
    }

    #[test]
    fn an_unknown_lag_is_accepted_and_maintenance_is_reported() {
        let cluster = parse_cluster(body!("3.0.2-joining-cluster")).unwrap();
        assert_eq!(cluster.members.len(), 2);
        assert!(!cluster.paused);
        assert!(parse_cluster(br#"{"members": [], "pause": true}"#).unwrap().paused);
    }

    #[test]
    fn members_that_cannot_be_asked_are_skipped_with_a_reason() {
        let cluster = parse_cluster(
            br#"{"members": [{"name": "new", "role": "replica"}, {"host": "h", "port": 1},
                {"name": "a\nb", "host": "h"}, {"name": "zero", "host": "h", "port": 0},
                {"name": "ok", "host": "::1", "api_url": null}]}"#,
        )
        .unwrap();
        assert_eq!(cluster.skipped.len(), 4, "{:?}", cluster.skipped);
        let [only] = &cluster.members[..] else { panic!("{cluster:?}") };
        assert_eq!(only.postgres.to_string(), "[::1]:5432");
        assert_eq!(only.patroni_url, None);
    }

    #[test]
    fn the_base_is_what_stands_before_the_path() {
        for (api_url, base) in [
            ("http://10.0.0.1:8008/patroni", "http://10.0.0.1:8008"),
            ("https://[::1]:8008/patroni/", "https://[::1]:8008"),
            ("http://gate/pg-1/patroni", "http://gate/pg-1"),
            ("http://10.0.0.1:8008", "http://10.0.0.1:8008"),
        ] {
            assert_eq!(&*base_url(api_url), base);
        }
    }
}
