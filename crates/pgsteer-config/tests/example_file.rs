//! The example file is correct: it parses, its defaults are the defaults, and no key is missing.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use pgsteer_config::draft::Draft;
use pgsteer_config::error::{ConfigErrors, Place};
use pgsteer_config::file;
use pgsteer_config::problem::Problem;
use pgsteer_core::settings::{Config, Membership};

const EXAMPLE: &str = include_str!("../../../pgsteer.example.toml");

fn read(text: &str) -> Result<Config, ConfigErrors> {
    let (draft, errors) = file::read(text, "pgsteer.example.toml");
    draft.finish(errors)
}

/// The configuration of the shortest file; all other keys have their defaults.
fn shortest() -> Config {
    read("[patroni]\nurls = ['http://10.0.0.11:8008']").unwrap()
}

/// Returns the setting in a commented line.
fn setting(line: &str) -> Option<&str> {
    let setting = line.strip_prefix('#')?;
    setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[').then_some(setting)
}

/// The example, with the settings uncommented that `wanted` selects.
fn with_settings(wanted: impl Fn(&str) -> bool) -> String {
    EXAMPLE
        .lines()
        .map(|line| setting(line).filter(|s| wanted(s)).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn is_example(setting: &str) -> bool {
    setting.ends_with("# example")
}

#[test]
fn the_example_is_the_shortest_configuration() {
    assert_eq!(read(EXAMPLE), Ok(shortest()));
}

#[test]
fn the_defaults_in_the_example_are_the_defaults() {
    let defaults = with_settings(|setting| !is_example(setting));
    assert!(defaults.lines().filter(|l| l.contains(" = ")).count() > 15);
    assert_eq!(read(&defaults), Ok(shortest()));
}

#[test]
fn everything_in_the_example_can_be_in_force_with_patroni() {
    let (members, _) = EXAMPLE.split_once("# A login that").unwrap();
    let members = members.split_once("# Instead of").unwrap().1;
    let all = with_settings(|setting| !members.contains(setting));
    let config = read(&all).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.cluster.check.is_some());
    assert!(config.cluster.etcd.is_some());
    assert_eq!(config.services.len(), 3);
}

#[test]
fn members_in_the_example_can_take_the_place_of_patroni() {
    let (before, rest) = EXAMPLE.split_once("[patroni]\n").unwrap();
    let (_, after) = rest.split_once("# Instead of").unwrap();
    let text: String = format!("{before}#{after}")
        .lines()
        .map(|line| setting(line).filter(|s| !s.starts_with("tags")).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = read(&text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(matches!(config.cluster.members, Membership::Listed(m) if m.len() == 2));
}

/// The reader lists its keys in the error for an unknown key.
#[test]
fn every_key_is_in_the_example() {
    let sections = [
        "cluster",
        "patroni",
        "etcd",
        "members.n1",
        "check",
        "services.write",
        "http",
        "agent",
        "proxy",
    ];
    let strange: String =
        sections.iter().map(|section| format!("[{section}]\nqqq = 1\n")).collect();
    let (_, errors): (Draft, ConfigErrors) = file::read(&strange, "x");
    let mut sections_seen = BTreeSet::new();
    for error in errors.iter() {
        let (Problem::UnknownKey { known, table, .. }, Place::File { .. }) =
            (&error.problem, &error.place)
        else {
            panic!("{error}");
        };
        sections_seen.insert(table.as_str());
        for key in known {
            let shown = |line: &str| setting(line).unwrap_or(line).starts_with(&format!("{key} ="));
            assert!(EXAMPLE.lines().any(shown), "{table}.{key}");
        }
    }
    assert_eq!(sections_seen.len(), sections.len());
}
