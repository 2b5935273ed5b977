//! The example file and the reference are generated, and true: the example parses, its defaults are the
//! defaults, and no key is missing. `make docs` writes both.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::path::Path;

use pgsteer_config::document;
use pgsteer_config::error::ConfigErrors;
use pgsteer_config::file;
use pgsteer_config::sections::SECTIONS;
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

#[test]
fn every_key_is_in_the_example_with_a_value_that_it_accepts() {
    for section in SECTIONS {
        for key in section.keys {
            let (name, section) = (key.name(), section.name);
            assert!(!key.help().is_empty(), "{section}.{name}: no help");
            let shown =
                |line: &str| setting(line).unwrap_or(line).starts_with(&format!("{name} ="));
            assert!(EXAMPLE.lines().any(shown), "{section}.{name}");
            let values = key.default_text().into_iter();
            let examples = Some(key.example().to_owned()).filter(|text| !text.is_empty());
            let accepts = key.accepts();
            let words = accepts.split('`').skip(1).step_by(2).filter(|_| accepts.starts_with('`'));
            let words = words.map(|word| format!("'{word}'"));
            for value in values.chain(examples).chain(words) {
                let table = match section {
                    "members" | "services" | "vip" => format!("{section}.x"),
                    section => section.to_owned(),
                };
                let (_, errors) = file::read(&format!("[{table}]\n{name} = {value}\n"), "x");
                assert!(errors.is_empty(), "{errors}");
            }
        }
    }
}

/// Compares a file of the repository with what it must be, or writes it.
fn is_current(path: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var("CONFIG_DOCS").is_ok_and(|word| word == "update") {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{} is out of date: `make docs` writes it", path.display());
}

#[test]
fn the_example_file_matches_the_table_of_keys() {
    is_current("pgsteer.example.toml", &document::example_file());
}

#[test]
fn the_reference_matches_the_table_of_keys() {
    is_current("docs/CONFIGURATION.md", &document::reference());
}
