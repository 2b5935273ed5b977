//! Facts about the cluster and pgsteer: identity, sources, counters.

use super::texts::cut;
use super::view::Fact;
use crate::status::document::{Cluster, Document};
use crate::status::sentence::Level;

const VALUE_CHARS_MAX: usize = 160;

/// The facts of `document`.
pub fn facts(document: &Document, cluster: &Cluster) -> Vec<Fact> {
    let mut facts = vec![members_from(cluster)];
    let mut add = |name, value: Option<String>, level| {
        facts.extend(value.map(|value| Fact { name, value: cut(&value, VALUE_CHARS_MAX), level }));
    };
    add("Scope", cluster.scope.clone(), Level::Well);
    add("System identifier", cluster.system_identifier.clone(), Level::Well);
    let (etcd, level) = match cluster.etcd.as_deref() {
        Some("lost") => (Some("not watched".to_owned()), Level::Note),
        Some(_) if cluster.etcd_behind == Some(true) => (Some("behind".to_owned()), Level::Note),
        Some(_) => {
            let events = cluster.etcd_events_total.unwrap_or(0);
            (Some(format!("watched, {events} changes of keys")), Level::Well)
        }
        None => (None, Level::Well),
    };
    add("etcd", etcd, level);
    add("Maintenance mode", cluster.paused.then(|| "on".to_owned()), Level::Note);
    add("Cancel requests", Some(document.cancels_total.to_string()), Level::Well);
    let away = document.clients_turned_away_total;
    add("Clients above a limit", (away > 0).then(|| format!("{away} refused")), Level::Note);
    let garbage = document.garbage_total;
    add("Not PostgreSQL's protocol", (garbage > 0).then(|| garbage.to_string()), Level::Well);
    facts
}

fn members_from(cluster: &Cluster) -> Fact {
    let (value, level) = match (cluster.members_from.as_str(), cluster.members_age_seconds) {
        ("cluster", _) => ("Patroni".to_owned(), Level::Well),
        ("configuration", _) => ("the configuration".to_owned(), Level::Well),
        ("stored", Some(age)) => (format!("stored, {age} s old"), Level::Note),
        ("stored", None) => ("stored".to_owned(), Level::Note),
        ("urls", _) => ("the URLs of Patroni".to_owned(), Level::Note),
        (other, _) => (cut(other, VALUE_CHARS_MAX), Level::Well),
    };
    Fact { name: "Member list from", value, level }
}
