//! Whether the cluster is healthy, and otherwise what is wrong with which member.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::lab::{ANSWER_LIMIT, Lab, session};
use crate::member::Member;
use crate::patience::wait_for;
use crate::rest;

/// What is wrong with a member, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailment {
    pub member: String,
    pub words: String,
}

impl Lab {
    /// Returns an empty list if one member is primary for itself and for Patroni, all others stream
    /// from it, and every PgBouncer listens.
    pub fn ailments(&self) -> Vec<Ailment> {
        let Ok(primary) = self.primary() else {
            let words = match self.writable().len() {
                0 => "no member takes writes".to_owned(),
                count => format!("{count} members take writes"),
            };
            return vec![Ailment { member: "all".to_owned(), words }];
        };
        let streaming = streaming_from(primary);
        std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .members()
                .iter()
                .map(|member| (member, scope.spawn(|| ailment(member, primary, &streaming))))
                .collect();
            asked
                .into_iter()
                .filter_map(|(member, answer)| {
                    let words = answer
                        .join()
                        .unwrap_or_else(|_| Some("could not be examined".to_owned()))?;
                    Some(Ailment { member: member.name.clone(), words })
                })
                .collect()
        })
    }

    /// Waits until [`Lab::ailments`] is empty.
    pub fn wait_healthy(&self, limit: Duration) -> Result<()> {
        wait_for("the cluster to be healthy", limit, || {
            let ailments = self.ailments();
            if ailments.is_empty() {
                return Ok(());
            }
            let words: Vec<String> = ailments
                .iter()
                .map(|ailment| format!("{}: {}", ailment.member, ailment.words))
                .collect();
            Err(words.join("; "))
        })
    }
}

/// The application_name of a replica's stream is the member's name.
fn streaming_from(primary: &Member) -> Vec<String> {
    let sql = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'";
    let rows = session(primary).and_then(|mut session| session.query(sql, ANSWER_LIMIT));
    rows.unwrap_or_default().into_iter().flatten().flatten().collect()
}

fn ailment(member: &Member, primary: &Member, streaming: &[String]) -> Option<String> {
    let is_primary = member.name == primary.name;
    if !is_primary && !streaming.contains(&member.name) {
        return Some(format!("does not stream from {}", primary.name));
    }
    if let Err(error) = std::net::TcpStream::connect_timeout(&member.pgbouncer_addr(), ANSWER_LIMIT)
    {
        return Some(format!("PgBouncer: {error}"));
    }
    let asked = rest::get(&format!("{}/patroni", member.patroni_url()), ANSWER_LIMIT);
    let status = match asked.and_then(|answer| answer.json()) {
        Ok(status) => status,
        Err(error) => return Some(format!("Patroni: {error:#}")),
    };
    let wanted: &[&str] = if is_primary { &["primary", "master"] } else { &["replica"] };
    let word = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or("nothing");
    if !wanted.contains(&word("role")) {
        return Some(format!("Patroni reports role {}", word("role")));
    }
    if !["running", "streaming"].contains(&word("state")) {
        return Some(format!("Patroni reports state {}", word("state")));
    }
    if is_primary {
        let lock = rest::get(&format!("{}/leader", member.patroni_url()), ANSWER_LIMIT);
        if !lock.is_ok_and(|answer| answer.status == 200) {
            return Some("is primary without the leader lock".to_owned());
        }
    }
    None
}
