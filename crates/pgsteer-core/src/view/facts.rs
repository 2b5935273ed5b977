//! The newest claims of a view in words, for a person who asks why.

use std::time::Duration;

use super::{Dated, View};
use crate::claim::{Failure, PatroniFacts, PoolerFacts, Progress};
use crate::explain::SourceFact;
use crate::time::Moment;

impl View {
    /// Returns the newest claim of each source, with its age.
    pub fn source_facts(&self, now: Moment) -> Vec<SourceFact> {
        let age = |asked_at: Moment| Some(now.since(asked_at));
        let fact = |source: &str, age: Option<Duration>, text: String| SourceFact {
            source: source.to_owned(),
            age,
            text,
        };
        let mut facts = Vec::new();
        let patroni = self.patroni.as_ref();
        facts.push(match patroni {
            Some(Dated { asked_at, answer }) => {
                fact("Patroni", age(*asked_at), of_answer(answer, patroni_text))
            }
            None => fact("Patroni", None, "no answer yet".to_owned()),
        });
        if let Some(Dated { asked_at, answer }) = &self.tether {
            let text = of_answer(answer, |facts| in_recovery(facts.in_recovery).to_owned());
            facts.push(fact("check login", age(*asked_at), text));
        }
        if let Some(Dated { asked_at, answer }) = &self.progress {
            facts.push(fact("WAL by SQL", age(*asked_at), progress_text(answer)));
        }
        if let Some(Dated { asked_at, answer }) = &self.new_sessions {
            let text = of_answer(answer, |()| "accepted".to_owned());
            facts.push(fact("new session", age(*asked_at), text));
        }
        for (port, pooler) in &self.poolers {
            let Dated { asked_at, answer } = &pooler.newest;
            let source = format!("PgBouncer {port}");
            facts.push(fact(&source, age(*asked_at), of_answer(answer, pooler_text)));
        }
        if let Some(failure) = &self.host.address_failure {
            facts.push(fact("name lookup", None, failure.to_string()));
        }
        facts
    }
}

fn of_answer<T>(answer: &Result<T, Failure>, text: impl Fn(&T) -> String) -> String {
    match answer {
        Ok(facts) => text(facts),
        Err(failure) => format!("failed: {failure}"),
    }
}

fn patroni_text(facts: &PatroniFacts) -> String {
    let lock = if facts.holds_lock { ", holds the leader lock" } else { "" };
    let timeline = facts.timeline.map(|it| format!(", timeline {it}")).unwrap_or_default();
    let state = facts.replication_state.as_ref();
    let state = state.map(|it| format!(", replication {it}")).unwrap_or_default();
    let tags: String = facts.tags.iter().map(|(key, value)| format!(", {key}={value}")).collect();
    format!("{} {}{lock}{timeline}{state}{tags}", facts.state, facts.role)
}

fn in_recovery(in_recovery: bool) -> &'static str {
    if in_recovery { "in recovery" } else { "not in recovery, accepts writes" }
}

fn progress_text(progress: &Progress) -> String {
    let streaming = match (progress.in_recovery, progress.streaming) {
        (true, true) => ", streams",
        (true, false) => ", does not stream",
        (false, _) => "",
    };
    let location = progress.location.map(|it| format!(", position {it}")).unwrap_or_default();
    format!("{}{streaming}{location}", in_recovery(progress.in_recovery))
}

fn pooler_text(facts: &PoolerFacts) -> String {
    match facts {
        PoolerFacts::Answers => "accepts connections".to_owned(),
        PoolerFacts::RefusesLogin(failure) => format!("refuses the check login: {failure}"),
        PoolerFacts::Leads { in_recovery: recovery, .. } => {
            format!("leads to a server that is {}", in_recovery(*recovery))
        }
        PoolerFacts::LeadsNowhere(failure) => format!("opens no session: {failure}"),
        PoolerFacts::Busy(failure) => format!("keeps queries waiting: {failure}"),
    }
}
