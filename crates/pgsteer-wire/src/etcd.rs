//! etcd's JSON, and what Patroni writes there: the keys `failover` and `leader` of its scope.
//!
//! The v3 API over HTTP is a gateway that writes the gRPC messages as JSON: bytes in base64, 64-bit
//! numbers as text, and zero or empty fields omitted (etcd's `api_grpc_gateway.md`; observed on
//! 3.4.23). A watch is a stream of such messages, one a line, each in an envelope `result` or
//! `error`.
//!
//! What Patroni writes (`dcs/__init__.py` of 4.1.5, `Failover` and `manual_failover`; `ha.py`):
//! - `failover` is `{"leader":"n1","member":"n2","scheduled_at":"..."}`, each part only if it was
//!   given: the leader only in a switchover, the time only in a scheduled one. After the order is
//!   done or refused, the key is not deleted but overwritten with `{}`.
//! - `leader` is the bare name of the member that holds the lock. It is written once and kept alive
//!   by a lease, which causes no event. It is deleted when the lock is released or expires.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use thiserror::Error;

use crate::excerpt::excerpt;
use pgsteer_core::claim::Order;
use pgsteer_core::names::MemberName;
use pgsteer_core::text::clean;

/// The reason why an answer is not a valid answer of etcd.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadAnswer {
    /// It is not JSON of the expected shape.
    #[error("{error}, in `{excerpt}`")]
    NotJson {
        /// The parser's message.
        error: String,
        /// The beginning of the answer.
        excerpt: String,
    },
    /// A key or a value is not base64.
    #[error("a key or a value that is not base64")]
    NotBase64,
    /// The answer to a login has no token.
    #[error("no token in the answer to the login")]
    NoToken,
}

/// The keys of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    failover: String,
    leader: String,
}

/// The current state of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; none if it was deleted.
    pub value: Option<Vec<u8>>,
    /// The revision of the store in which it was written.
    pub revision: u64,
}

/// The answer to a range request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The revision of the store at the time of the answer.
    pub revision: u64,
    /// The keys that exist.
    pub entries: Vec<Entry>,
}

/// One message of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// The watch is established.
    Created,
    /// Keys were written; empty for a keepalive message.
    Written(Vec<Entry>),
    /// The watch has ended, with this reason.
    Ended(String),
}

/// The meaning of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The order for a switchover, if there is one.
    Order(Option<Ordered>),
    /// The holder of the leader lock.
    Leader(Option<MemberName>),
}

/// An order, and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The order.
    pub order: Order,
    /// The time of day as Patroni writes it (Python's `isoformat`, with an offset); none means at
    /// once.
    pub scheduled_at: Option<String>,
}

impl Keys {
    /// The keys below `namespace`, which has a leading slash and no trailing one.
    pub fn new(namespace: &str, scope: &str) -> Keys {
        let key = |name: &str| format!("{namespace}/{scope}/{name}");
        Keys { failover: key("failover"), leader: key("leader") }
    }

    /// What all keys of the cluster begin with.
    pub fn prefix(&self) -> &str {
        self.leader.strip_suffix("leader").unwrap_or(&self.leader)
    }

    /// The body to post to `/v3/kv/range` for both keys. The range includes some other keys, all
    /// small; `initialize` is one of them.
    pub fn range_request(&self) -> String {
        json!({ "key": base64(&self.failover), "range_end": self.range_end() }).to_string()
    }

    /// The same for the leader key alone.
    pub fn leader_request(&self) -> String {
        json!({ "key": base64(&self.leader) }).to_string()
    }

    /// The body to post to `/v3/watch` for all writes from this revision on.
    pub fn watch_request(&self, start_revision: u64) -> String {
        let request = json!({
            "key": base64(&self.failover),
            "range_end": self.range_end(),
            "start_revision": start_revision.to_string(),
        });
        json!({ "create_request": request }).to_string()
    }

    /// Returns true if an entry is the key `failover`.
    pub fn is_order(&self, entry: &Entry) -> bool {
        entry.key == self.failover.as_bytes()
    }

    /// Returns the meaning of an entry; none for another key. An invalid order counts as no order.
    pub fn meaning(&self, entry: &Entry) -> Option<Meaning> {
        let value = entry.value.as_deref();
        if self.is_order(entry) {
            return Some(Meaning::Order(value.and_then(parse_failover)));
        }
        let name = |value: &[u8]| MemberName::new(std::str::from_utf8(value).ok()?).ok();
        let is_leader = entry.key == self.leader.as_bytes();
        is_leader.then(|| Meaning::Leader(value.and_then(name)))
    }

    /// Returns the first key after the leader key, which is the last of both in etcd's order.
    fn range_end(&self) -> String {
        base64(&format!("{}\0", self.leader))
    }
}

/// The body to post to `/v3/auth/authenticate`.
pub fn login_request(name: &str, password: &str) -> String {
    json!({ "name": name, "password": password }).to_string()
}

/// Returns the token from the answer to a login. The token is a secret, and so is the whole answer.
///
/// # Errors
/// The answer has no token.
pub fn parse_token(body: &[u8]) -> Result<String, BadAnswer> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| BadAnswer::NoToken)?;
    let token = answer.get("token").and_then(Value::as_str);
    // The token becomes the value of a header.
    let is_plain = |token: &&str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    token.filter(is_plain).map(str::to_owned).ok_or(BadAnswer::NoToken)
}

/// Parses the answer to a range request.
///
/// # Errors
/// The body is not JSON of that shape.
pub fn parse_range(body: &[u8]) -> Result<Found, BadAnswer> {
    let answer: RangeBody = from_json(body)?;
    let revision = answer.header.revision.0;
    let entries = answer.kvs.iter().map(|kv| entry(kv, false)).collect::<Result<_, _>>()?;
    Ok(Found { revision, entries })
}

/// Parses one line of a watch.
///
/// # Errors
/// The line is not JSON of that shape.
pub fn parse_watch(line: &[u8]) -> Result<WatchMessage, BadAnswer> {
    let envelope: Envelope = from_json(line)?;
    let Some(answer) = envelope.result else {
        return Ok(WatchMessage::Ended(complaint(line)));
    };
    if answer.canceled {
        return Ok(WatchMessage::Ended(
            match (answer.compact_revision.0, answer.cancel_reason.as_str()) {
                (0, "") => "etcd has ended the watch".to_owned(),
                (0, reason) => excerpt(reason.as_bytes()),
                _ => "etcd has compacted the revisions since the last event".to_owned(),
            },
        ));
    }
    if answer.created {
        return Ok(WatchMessage::Created);
    }
    let is_deletion = |event: &EventBody| event.kind.as_deref() == Some("DELETE");
    let entries = answer.events.iter().map(|event| entry(&event.kv, is_deletion(event)));
    Ok(WatchMessage::Written(entries.collect::<Result<_, _>>()?))
}

/// Returns etcd's error message from an error answer, in one line.
pub fn complaint(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let texts = ["/message", "/error/message", "/error"];
    let text = texts.iter().find_map(|path| answer.pointer(path)?.as_str());
    text.map_or_else(|| excerpt(body), |text| excerpt(text.as_bytes()))
}

fn parse_failover(value: &[u8]) -> Option<Ordered> {
    let written: FailoverBody = serde_json::from_slice(value).ok()?;
    // As in Patroni, an empty text means none.
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let name = |text: Option<String>| given(text).map(|text| MemberName::new(&text)).transpose();
    let order = Order { leader: name(written.leader).ok()?, candidate: name(written.member).ok()? };
    let is_none = order == Order::default();
    (!is_none).then(|| Ordered { order, scheduled_at: given(written.scheduled_at) })
}

#[derive(Deserialize)]
struct FailoverBody {
    leader: Option<String>,
    member: Option<String>,
    scheduled_at: Option<String>,
}

#[derive(Deserialize)]
struct RangeBody {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct Envelope {
    result: Option<WatchBody>,
}

#[derive(Deserialize)]
struct WatchBody {
    #[serde(default)]
    created: bool,
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    compact_revision: Number,
    #[serde(default)]
    cancel_reason: String,
    #[serde(default)]
    events: Vec<EventBody>,
}

#[derive(Deserialize)]
struct EventBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    kv: KeyValue,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    revision: Number,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    mod_revision: Number,
}

/// A number, encoded as text or as a number.
#[derive(Clone, Copy, Debug, Default)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(u64),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Number(number)),
            Written::Text(text) => text.parse().map(Number).map_err(serde::de::Error::custom),
        }
    }
}

fn entry(kv: &KeyValue, is_deleted: bool) -> Result<Entry, BadAnswer> {
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| BadAnswer::NotBase64);
    let value = if is_deleted { None } else { Some(bytes(&kv.value)?) };
    Ok(Entry { key: bytes(&kv.key)?, value, revision: kv.mod_revision.0 })
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

fn from_json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, BadAnswer> {
    serde_json::from_slice(body).map_err(|error| BadAnswer::NotJson {
        // The parser's message may repeat a whole text of the body.
        error: clean(&error.to_string()).into_owned(),
        excerpt: excerpt(body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("/service", "lab")
    }

    fn member(name: &str) -> MemberName {
        MemberName::new(name).unwrap()
    }

    fn order(value: &str) -> Option<Ordered> {
        let key = b"/service/lab/failover".to_vec();
        let entry = Entry { key, value: Some(value.into()), revision: 1 };
        match keys().meaning(&entry) {
            Some(Meaning::Order(order)) => order,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_order_is_read_as_patroni_writes_it() {
        let switchover = order(r#"{"leader":"n1","member":"n2"}"#).unwrap();
        assert_eq!(switchover.order.leader, Some(member("n1")));
        assert_eq!(switchover.order.candidate, Some(member("n2")));
        assert_eq!(switchover.scheduled_at, None);
        assert_eq!(order(r#"{"leader":"n1"}"#).unwrap().order.candidate, None);
        assert_eq!(order(r#"{"member":"n2"}"#).unwrap().order.leader, None);
        let at = "2026-01-14T10:09:57.139400+00:00";
        let scheduled = order(&format!(r#"{{"leader":"n1","scheduled_at":"{at}"}}"#)).unwrap();
        assert_eq!(scheduled.scheduled_at.as_deref(), Some(at));
    }

    #[test]
    fn what_is_no_order_is_none() {
        for value in [
            "{}",
            "",
            "null",
            "n1:n2",
            "[1]",
            "{\"leader\":",
            r#"{"leader":"","member":""}"#,
            r#"{"leader":7}"#,
            r#"{"leader":"a\nb"}"#,
            r#"{"scheduled_at":"2026-01-14T10:09:57+00:00"}"#,
        ] {
            assert_eq!(order(value), None, "{value}");
        }
    }

    /// As an etcd 3.4.23 answers.
    #[test]
    fn the_keys_are_found_with_their_revisions() {
        let body =
            br#"{"header":{"cluster_id":"1","member_id":"2","revision":"45","raft_term":"2"},
            "kvs":[{"key":"L3NlcnZpY2UvbGFiL2xlYWRlcg==","create_revision":"9","mod_revision":"31",
            "version":"1","value":"bjE=","lease":"7587"}],"count":"1"}"#;
        let found = parse_range(body).unwrap();
        assert_eq!((found.revision, found.entries[0].revision), (45, 31));
        let leader = Some(Meaning::Leader(Some(member("n1"))));
        assert_eq!(keys().meaning(&found.entries[0]), leader);
        assert_eq!(parse_range(br#"{"header":{"revision":"3"}}"#).unwrap().entries, []);
    }

    #[test]
    fn a_watch_reports_writes_and_deletions() {
        let created = br#"{"result":{"header":{"revision":"45"},"created":true}}"#;
        assert_eq!(parse_watch(created), Ok(WatchMessage::Created));
        let lines = br#"{"result":{"header":{"revision":"47"},"events":[
            {"kv":{"key":"L3NlcnZpY2UvbGFiL2xlYWRlcg==","mod_revision":"46","value":"bjI="}},
            {"type":"DELETE","kv":{"key":"L3NlcnZpY2UvbGFiL2xlYWRlcg==","mod_revision":"47"}},
            {"kv":{"key":"L3NlcnZpY2UvbGFiL2hpc3Rvcnk=","mod_revision":"47","value":"W10="}}]}}"#;
        let Ok(WatchMessage::Written(entries)) = parse_watch(lines) else { panic!() };
        let meanings: Vec<_> = entries.iter().map(|entry| keys().meaning(entry)).collect();
        let leader = |name: Option<&str>| Some(Meaning::Leader(name.map(member)));
        assert_eq!(meanings, [leader(Some("n2")), leader(None), None]);
        let alive = br#"{"result":{"header":{"revision":"47"}}}"#;
        assert_eq!(parse_watch(alive), Ok(WatchMessage::Written(Vec::new())));
    }

    #[test]
    fn a_watch_that_ends_reports_the_reason() {
        for (line, why) in [
            (r#"{"result":{"canceled":true,"cancel_reason":"no permission"}}"#, "no permission"),
            (r#"{"result":{"canceled":true,"compact_revision":"7"}}"#, "compacted"),
            (r#"{"error":{"grpc_code":16,"message":"invalid auth token"}}"#, "invalid auth token"),
            (r#"{"error":"gone","code":14}"#, "gone"),
            ("{}", "{}"),
        ] {
            let Ok(WatchMessage::Ended(answer)) = parse_watch(line.as_bytes()) else {
                panic!("{line}")
            };
            assert!(answer.contains(why), "{answer}");
        }
    }

    #[test]
    fn another_program_at_the_address_is_reported_as_not_etcd() {
        for body in ["", "<h1>It works!</h1>", "[]", r#"{"header":{"revision":"x"}}"#] {
            assert!(parse_range(body.as_bytes()).is_err(), "{body}");
        }
        let kvs = br#"{"header":{},"kvs":[{"key":"%%"}]}"#;
        assert_eq!(parse_range(kvs), Err(BadAnswer::NotBase64));
        assert!(parse_watch(b"\xff").is_err());
    }

    #[test]
    fn a_token_is_plain_text_and_is_not_repeated() {
        assert_eq!(parse_token(br#"{"token":"abc.7"}"#), Ok("abc.7".to_owned()));
        for body in [r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"tokens":"geheim"}"#, "geheim"] {
            let error = parse_token(body.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
    }

    #[test]
    fn the_questions_are_those_of_the_gateway() {
        let range =
            r#"{"key":"L3NlcnZpY2UvbGFiL2ZhaWxvdmVy","range_end":"L3NlcnZpY2UvbGFiL2xlYWRlcgA="}"#;
        assert_eq!(keys().range_request(), range);
        let watch: Value = serde_json::from_str(&keys().watch_request(46)).unwrap();
        assert_eq!(watch["create_request"]["start_revision"], "46");
    }
}
