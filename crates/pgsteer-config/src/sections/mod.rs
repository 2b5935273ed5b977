//! The sections: each with its keys, its settings, and the checks between its values.

pub mod agent;
pub mod check;
pub mod cluster;
pub mod control;
pub mod etcd;
pub mod haproxy;
pub mod http;
pub mod listeners;
pub mod members;
pub mod patroni;
pub mod proxy;
pub mod services;
pub mod vip;

use std::fmt;
use std::path::PathBuf;

use pgsteer_core::settings::Verify;
use pgsteer_core::settings::defaults::MEMBERS_MAX;

use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::Field;
use crate::key::SectionKeys;
use crate::origin::Origin;

/// All sections, in the order of the documents.
pub static SECTIONS: [&SectionKeys; 12] = [
    &cluster::KEYS,
    &patroni::KEYS,
    &etcd::KEYS,
    &members::KEYS,
    &check::KEYS,
    &services::KEYS,
    &http::KEYS,
    &agent::KEYS,
    &haproxy::KEYS,
    &proxy::KEYS,
    &control::KEYS,
    &vip::KEYS,
];

/// A number as a `usize`, if it was given.
fn count(field: &Field<u64>) -> Option<usize> {
    usize::try_from(field.given()?.value).ok()
}

/// Reports a CA file that is not used because verification is disabled.
fn check_ca_file(verify: &Field<Verify>, ca_file: &Field<PathBuf>, errors: &mut ConfigErrors) {
    let verifies_nothing = verify.given().is_some_and(|given| given.value == Verify::None);
    if let (Some(ca), true) = (ca_file.given(), verifies_nothing) {
        errors.push(ca.origin.clone(), Conflict::CaFileWithoutVerify);
    }
}

/// Reports one of a pair without the other: a client certificate and its key, or a user and a
/// password.
fn check_pair<A, B>(
    (one_key, one): (&'static str, &Field<A>),
    (other_key, other): (&'static str, &Field<B>),
    errors: &mut ConfigErrors,
) {
    if let (Some(given), true) = (one.given(), other.is_absent()) {
        errors.push(given.origin.clone(), Conflict::WithoutPartner(other_key));
    }
    if let (Some(given), true) = (other.given(), one.is_absent()) {
        errors.push(given.origin.clone(), Conflict::WithoutPartner(one_key));
    }
}

fn check_count(found: usize, origin: &Origin, example: &'static str, errors: &mut ConfigErrors) {
    let max = MEMBERS_MAX;
    if found == 0 {
        errors.push(origin.clone(), Conflict::Empty { example });
    }
    if found > max {
        errors.push(origin.clone(), Conflict::TooMany { found, max });
    }
}

fn check_distinct<'a, T: PartialEq + fmt::Display + 'a>(
    all: impl Iterator<Item = (&'a T, &'a Origin)>,
    errors: &mut ConfigErrors,
) {
    let mut seen: Vec<(&T, &Origin)> = Vec::new();
    for (value, origin) in all.take(MEMBERS_MAX) {
        if let Some((_, other)) = seen.iter().find(|(earlier, _)| *earlier == value) {
            let (what, other) = (value.to_string(), (*other).clone());
            errors.push(origin.clone(), Conflict::Same { what, other });
        }
        seen.push((value, origin));
    }
}
