//! Licences, sources and advisories of the dependencies, checked against `dependencies.toml`
//! without a download.
//!
//! A crate that the file does not list fails the test, so that the advisories of a new dependency
//! are looked up first.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All packages of the lock file that come from outside this repository.
fn foreign_packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().filter(|package| !package["source"].is_null()).cloned().collect()
}

fn rules() -> toml::Table {
    std::fs::read_to_string(root().join("dependencies.toml")).unwrap().parse().unwrap()
}

fn name(package: &Value) -> String {
    format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

/// Returns whether the expression permits use. An expression such as `(MIT OR Apache-2.0) AND
/// Unicode-3.0` does so if every part that AND joins offers at least one allowed licence.
fn is_met(expression: &str, allowed: &[&str]) -> bool {
    expression.split(" AND ").all(|part| {
        let words = part.split(" OR ").flat_map(|part| part.split('/'));
        words
            .map(|word| word.trim_matches(|c| c == '(' || c == ')' || c == ' '))
            .map(|word| word.split(" WITH ").next().unwrap_or(word))
            .any(|word| allowed.contains(&word))
    })
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    let allowed = words(&rules["licences"]);
    let refused: Vec<String> = foreign_packages()
        .iter()
        .filter(|package| !is_met(package["license"].as_str().unwrap_or("none"), &allowed))
        .map(|package| format!("{}: {}", name(package), package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn every_crate_comes_from_the_registry() {
    let strange: Vec<String> = foreign_packages()
        .iter()
        .filter(|package| !package["source"].as_str().unwrap_or_default().starts_with("registry+"))
        .map(name)
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

#[test]
fn no_crate_has_a_known_advisory() {
    let rules = rules();
    let floors = rules["floors"].as_table().unwrap();
    let below: Vec<String> = foreign_packages()
        .iter()
        .filter(|package| {
            let floor = floors.get(package["name"].as_str().unwrap());
            floor.is_some_and(|floor| {
                version(package["version"].as_str().unwrap()) < version(floor.as_str().unwrap())
            })
        })
        .map(name)
        .collect();
    assert!(below.is_empty(), "below its floor: {below:#?}");
}

#[test]
fn the_advisories_of_every_crate_have_been_looked_up() {
    let rules = rules();
    let clear: Vec<&str> = words(&rules["clear"]);
    let floors = rules["floors"].as_table().unwrap();
    let is_listed = |name: &str| clear.contains(&name) || floors.contains_key(name);
    let packages = foreign_packages();
    let names = packages.iter().map(|package| package["name"].as_str().unwrap());
    let missing: Vec<&str> = names.filter(|name| !is_listed(name)).collect();
    assert!(missing.is_empty(), "run scripts/advisories.py, which looks up {missing:?}");
}

#[test]
fn cargo_deny_allows_the_same_licences() {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let deny: toml::Table = text.parse().unwrap();
    assert_eq!(words(&deny["licenses"]["allow"]), words(&rules()["licences"]));
}

fn words(list: &toml::Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

fn version(text: &str) -> Vec<u64> {
    let core = text.split(['-', '+']).next().unwrap();
    core.split('.').map(|part| part.parse().unwrap()).collect()
}

#[test]
fn version_and_licence_comparisons_are_correct() {
    assert!(version("1.10.0") > version("1.9.9"));
    assert!(is_met("(MIT OR GPL-3.0) AND Unicode-3.0", &["MIT", "Unicode-3.0"]));
    assert!(!is_met("MIT AND GPL-3.0", &["MIT"]));
}
