//! `[members.NAME]`: the members one by one, for a cluster without Patroni.

use std::sync::Arc;

use pgsteer_core::claim::Found;
use pgsteer_core::names::{Endpoint, MemberName};

use super::{check_count, check_distinct};
use crate::address;
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::{Field, Given};
use crate::key::{Key, SectionKeys};
use crate::kinds::Text;
use crate::written::Section;

/// The section of each member.
pub static KEYS: SectionKeys = SectionKeys {
    name: "members",
    help: "Instead of [patroni]: the members one by one, each as [members.NAME]. SQL alone \
           then decides which member is the primary, so [check] is needed. There are no tags \
           and no standby leader.",
    keys: &[&POSTGRES],
    at_restart: false,
};

/// The address of PostgreSQL.
pub static POSTGRES: Key<Text<Endpoint>> =
    Key::new("members", "postgres", Text::new("HOST:PORT", address::postgres))
        .example("\"10.0.0.11:5432\"")
        .help("The address of the member's PostgreSQL.");

/// Returns the listed members; none if an error makes them unknown.
pub fn finish(
    given: &Given<Vec<(MemberName, Given<Section>)>>,
    errors: &mut ConfigErrors,
) -> Option<Vec<Found>> {
    let members = &given.value;
    let example = "[members.n1] with postgres = \"10.0.0.11:5432\"";
    check_count(members.len(), &given.origin, example, errors);
    let addresses: Vec<Field<Endpoint>> =
        members.iter().map(|(_, section)| section.value.get(&POSTGRES)).collect();
    for ((_, section), address) in members.iter().zip(&addresses) {
        if address.is_absent() {
            let example = "postgres = \"10.0.0.11:5432\"";
            let origin = section.origin.clone();
            errors.push(origin, Conflict::Missing { key: "postgres", example });
        }
    }
    check_distinct(members.iter().map(|(name, section)| (name, &section.origin)), errors);
    let given = addresses.iter().filter_map(Field::given);
    check_distinct(given.map(|given| (&given.value, &given.origin)), errors);
    let found = members.iter().zip(addresses).map(|((name, _), address)| {
        let postgres = address.value()?;
        Some(Found { name: name.clone(), postgres, patroni_url: None::<Arc<str>> })
    });
    found.collect()
}
