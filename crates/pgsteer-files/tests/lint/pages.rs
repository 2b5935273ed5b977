//! The pages in docs/lint: each rule has one, whose bad example shows the fault and whose good one
//! nothing at all; and their index is complete.

use std::path::PathBuf;

use pgsteer_files::lint::rule::Rule;
use pgsteer_files::lint::rules::rules;
use pgsteer_files::lint::{Beside, Kind, Options, check_login, lint_beside};
use pgsteer_files::render::HaproxyVersion;

use crate::ids;

/// One fenced block of a page.
struct Example {
    kind: Kind,
    is_good: bool,
    options: Options,
    text: String,
    /// The settings of a file beside it.
    beside: Beside,
}

fn examples(rule: &Rule) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut beside = Beside::default();
    let mut rest = rule.page;
    while let Some((_, behind)) = rest.split_once("\n```") {
        let (info, behind) = behind.split_once('\n').unwrap();
        let (text, behind) = behind.split_once("```").unwrap();
        if info == "pgsteer beside" {
            beside.check_login = check_login(text);
        } else {
            examples.push(Example { beside: beside.clone(), ..example(rule, info, text) });
        }
        rest = behind;
    }
    examples
}

fn example(rule: &Rule, info: &str, text: &str) -> Example {
    let mut words = info.split_whitespace();
    let kind = words.next().unwrap();
    let kind = Kind::ALL.into_iter().find(|it| it.as_str() == kind);
    let kind = kind.unwrap_or_else(|| panic!("{}: {info}", rule.id));
    let is_good = match words.next() {
        Some("good") => true,
        Some("bad") => false,
        other => panic!("{}: {other:?}", rule.id),
    };
    let mut options = Options::default();
    for word in words {
        match word.split_once('=').unwrap() {
            ("haproxy-version", version) => {
                options.haproxy = HaproxyVersion::read(version).unwrap()
            }
            ("postgres-version", version) => options.postgres = version.parse().ok(),
            ("max-connections", number) => options.max_connections = number.parse().ok(),
            other => panic!("{}: {other:?}", rule.id),
        }
    }
    Example { kind, is_good, options, text: text.to_owned(), beside: Beside::default() }
}

#[test]
fn every_bad_example_shows_its_fault_and_every_good_one_none() {
    for rule in rules() {
        let examples = examples(rule);
        assert!(examples.iter().any(|it| it.is_good), "{}: no good example", rule.id);
        assert!(examples.iter().any(|it| !it.is_good), "{}: no bad example", rule.id);
        for Example { kind, is_good, options, text, beside } in examples {
            let report = lint_beside(kind, &text, &options, &beside);
            let report = report.unwrap_or_else(|why| panic!("{}: {why}", rule.id));
            let ids = ids(&report);
            match is_good {
                true => assert!(ids.is_empty(), "{}, good: {:#?}", rule.id, report.findings),
                false => assert!(ids.contains(rule.id), "{}, bad: {ids:?}", rule.id),
            }
        }
    }
}

#[test]
fn every_page_matches_its_rule() {
    for rule in rules() {
        let page = rule.page.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_there =
            |text: &str| page.contains(&text.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(rule.page.starts_with(&format!("# {}\n", rule.id)), "{}", rule.id);
        for text in [rule.title, rule.costs, rule.remedy] {
            assert!(is_there(text), "{}: the page does not say {text:?}", rule.id);
        }
        let mut severity = rule.severity.as_str().to_owned();
        severity[..1].make_ascii_uppercase();
        assert!(is_there(&format!("# {} {severity}, in ", rule.id)), "{}", rule.id);
        let is_sentence = |text: &str| text.ends_with(['.', '?']);
        assert!(is_sentence(rule.costs) && is_sentence(rule.remedy), "{}", rule.id);
        assert!(!is_sentence(rule.title), "{}", rule.id);
    }
}

#[test]
fn no_two_rules_have_one_name() {
    let mut seen: Vec<&str> = rules().map(|rule| rule.id).collect();
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

const INDEX: &str = include_str!("../../../../docs/lint/README.md");
const BEGIN: &str =
    "<!-- rules: written by a test, see crates/pgsteer-files/tests/lint/pages.rs -->\n";
const END: &str = "<!-- end -->\n";

/// `LINT_INDEX=update cargo test -p pgsteer-files --test lint` writes it.
#[test]
fn the_index_names_every_rule() {
    let row = |rule: &Rule| {
        format!("| [{0}]({0}.md) | {1} | {2} |\n", rule.id, rule.severity, rule.title)
    };
    let rows: String = rules().map(row).collect();
    let table = format!("{BEGIN}| rule | severity | |\n|---|---|---|\n{rows}{END}");
    let (before, rest) = INDEX.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{table}{after}");
    if std::env::var("LINT_INDEX").is_ok_and(|word| word == "update") {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/lint/README.md");
        std::fs::write(path, wanted).unwrap();
        return;
    }
    assert!(INDEX == wanted, "docs/lint/README.md is out of date: LINT_INDEX=update writes it");
}
