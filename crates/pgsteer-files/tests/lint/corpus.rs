//! Whole configurations with all that lint finds in them, beside each in a file of its own.
//!
//! `corpus` has configurations as they are publicly used, in our own words; `faults` has small ones
//! with the fault in their name. `LINT_CORPUS=update cargo test -p pgsteer-files --test lint
//! corpus` writes the findings anew: read the difference.

use std::path::{Path, PathBuf};

use pgsteer_files::lint::location::Severity;
use pgsteer_files::lint::{Kind, Options, Report, Source, lint_joined, lint_named};
use pgsteer_files::render::HaproxyVersion;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/lint").join(name)
}

/// Files and folders of files, without the findings beside them.
fn cases(name: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|it| it != "found"))
        .collect();
    cases.sort();
    cases
}

/// `# haproxy-version 3.2` in the first line.
fn options(text: &str) -> Options {
    let version = text.lines().next().and_then(|line| line.strip_prefix("# haproxy-version "));
    let haproxy = version.map(|version| HaproxyVersion::read(version).unwrap());
    Options { haproxy: haproxy.unwrap_or(HaproxyVersion::OLDEST), ..Options::default() }
}

fn reports(path: &Path) -> Vec<(String, Report)> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    if path.is_dir() {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let texts: Vec<(String, String)> =
            files.iter().map(|it| (name(it), std::fs::read_to_string(it).unwrap())).collect();
        let sources: Vec<Source<'_>> =
            texts.iter().map(|(name, text)| Source { name, text }).collect();
        let reports = lint_joined(&sources, &Options::default()).unwrap();
        return texts.iter().map(|(name, _)| name.clone()).zip(reports).collect();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let report = lint_named(&name(path), &text, &options(&text));
    let report = report.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    vec![(String::new(), report)]
}

fn found(reports: &[(String, Report)]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (name, report) in reports {
        let file = if name.is_empty() { String::new() } else { format!("{name}:") };
        for finding in &report.findings {
            let (line, rule) = (finding.place.line, finding.rule.id);
            lines.push(format!("{file}{line}: {}[{rule}] {}\n", finding.severity, finding.message));
        }
    }
    if lines.is_empty() { "(nothing)\n".to_owned() } else { lines.concat() }
}

/// Compares the findings of each case with those beside it.
#[track_caller]
fn compare(name: &str) {
    let is_update = std::env::var("LINT_CORPUS").is_ok_and(|word| word == "update");
    let mut wrong = Vec::new();
    for path in cases(name) {
        let found = found(&reports(&path));
        let golden = path.with_extension("found");
        if is_update {
            std::fs::write(&golden, &found).unwrap();
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        if found != wanted {
            wrong.push(format!("{}:\n{found}wanted:\n{wanted}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn corpus_of_configurations_as_people_have_them() {
    assert!(cases("corpus").len() >= 40);
    compare("corpus");
}

#[test]
fn corpus_of_faults_that_are_found() {
    compare("faults");
}

/// What each of them gets is right: an error is one that was looked at by a person, by its name here.
#[test]
fn corpus_has_errors_where_there_are_faults_alone() {
    let with_errors: Vec<String> = cases("corpus")
        .iter()
        .filter(|path| reports(path).iter().any(|(_, it)| it.count(Severity::Error) > 0))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let wanted = [
        "agent-daemon",
        "check-by-sql",
        "haproxy-1.5-words",
        "haproxy-1.6-style",
        "haproxy-3.2-words-on-2.6",
        "streaming-with-backup",
        "template-not-rendered",
    ];
    assert_eq!(with_errors, wanted);
}

/// Other severities for the same words: a piece is judged less, and a whole file more.
#[test]
fn a_corpus_file_split_into_sections_has_the_same_findings_if_joined() {
    let text = std::fs::read_to_string(folder("corpus/patroni-primary-replicas.cfg")).unwrap();
    let at = text.find("\nlisten primary").unwrap() + 1;
    let (first, second) = text.split_at(at);
    let whole = lint_named("haproxy.cfg", &text, &Options::default()).unwrap();
    let sources = [Source { name: "a.cfg", text: first }, Source { name: "b.cfg", text: second }];
    let joined = lint_joined(&sources, &Options::default()).unwrap();
    let ids =
        |report: &Report| -> Vec<&str> { report.findings.iter().map(|it| it.rule.id).collect() };
    assert_eq!(joined.iter().flat_map(ids).collect::<Vec<_>>(), ids(&whole));
    let piece = pgsteer_files::lint::lint(Kind::Haproxy, second, &Options::default()).unwrap();
    assert!(piece.is_piece && piece.findings.len() < whole.findings.len());
}
