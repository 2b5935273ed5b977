//! `pgsteer lint`: reads the files, and prints the findings of the core.

mod files;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use pgsteer_files::lint::haproxy::has_global;
use pgsteer_files::lint::location::Severity;
use pgsteer_files::lint::show::{self, Looked};
use pgsteer_files::lint::{
    Beside, Kind, Options, Report, Source, Unreadable, check_login, lint_beside, lint_joined,
    lint_named, rules,
};
use pgsteer_files::render::HaproxyVersion;

use self::files::Input;
use crate::cli::{self, LintArgs, LintFormat};
use crate::diagnostic::{Diagnostic, report};

/// The exit code if errors were found.
const EXIT_ERRORS: u8 = 1;

/// Lints the files that `args` name. Exit 0: no errors. 1: errors. 2: a file that cannot be read or
/// parsed, or invalid flags.
pub fn run(args: &LintArgs) -> ExitCode {
    if args.list {
        return print(&show::list(), ExitCode::SUCCESS);
    }
    if let Some(id) = &args.explain {
        return match rules::find(id) {
            Some(rule) => print(rule.page, ExitCode::SUCCESS),
            None => wrong(Diagnostic::new(
                format!("--explain: there is no rule `{id}`"),
                Some("--list names them".to_owned()),
            )),
        };
    }
    let options = match options(args) {
        Ok(options) => options,
        Err(diagnostic) => return wrong(diagnostic),
    };
    let files = judge(files::read(&args.files), args.kind, &options);
    let shown = match args.format {
        LintFormat::Text => show::text(&files),
        LintFormat::Json => show::json(&files),
        LintFormat::Sarif => show::sarif(&files, env!("CARGO_PKG_VERSION")),
    };
    print(&shown, exit_code(&files))
}

fn options(args: &LintArgs) -> Result<Options, Diagnostic> {
    let haproxy = match &args.haproxy_version {
        None => HaproxyVersion::OLDEST,
        Some(text) => HaproxyVersion::read(text).map_err(|refusal| {
            Diagnostic::new(format!("--haproxy-version: {refusal}"), refusal.remedy())
        })?,
    };
    Ok(Options { haproxy, postgres: args.postgres_version, max_connections: args.max_connections })
}

/// Lints the files. HAProxy's files form one configuration, as with several `-f` of HAProxy. If
/// more than one has a `global` section, each file or each directory is a configuration.
fn judge(files: Vec<Input>, kind: Option<Kind>, options: &Options) -> Vec<Looked> {
    let is_haproxy = |file: &Input| {
        let text = file.text.as_deref().unwrap_or_default();
        let of_directory = file.group.is_some();
        kind.or_else(|| Kind::of(&file.name, text).or(of_directory.then_some(Kind::Haproxy)))
            == Some(Kind::Haproxy)
    };
    let of_haproxy: Vec<usize> = (0..files.len())
        .filter(|at| files.get(*at).is_some_and(|file| file.text.is_ok() && is_haproxy(file)))
        .collect();
    let text =
        |at: &usize| files.get(*at).and_then(|file| file.text.as_deref().ok()).unwrap_or_default();
    let is_one = of_haproxy.iter().filter(|at| has_global(text(at))).count() <= 1;
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in of_haproxy {
        let own = files.get(at).and_then(|file| file.group).unwrap_or(at);
        groups.entry(if is_one { 0 } else { own }).or_default().push(at);
    }
    let mut judged: BTreeMap<usize, Result<Report, Unreadable>> = BTreeMap::new();
    for group in groups.into_values().filter(|group| group.len() > 1) {
        let named = group.iter().filter_map(|at| files.get(*at));
        let sources: Vec<Source<'_>> = named
            .map(|file| Source { name: &file.name, text: file.text.as_deref().unwrap_or_default() })
            .collect();
        match lint_joined(&sources, options) {
            Ok(reports) => judged.extend(group.into_iter().zip(reports.into_iter().map(Ok))),
            Err(why) => judged.extend(group.into_iter().map(|at| (at, Err(why.clone())))),
        }
    }
    let beside = beside(&files, kind);
    let looked =
        files.into_iter().enumerate().map(|(at, file)| match (judged.remove(&at), file.text) {
            (_, Err(why)) => Looked { name: file.name, source: String::new(), outcome: Err(why) },
            (Some(outcome), Ok(text)) => Looked::new(file.name, text, outcome),
            (None, Ok(text)) => {
                let of_directory = file.group.map(|_| Kind::Haproxy);
                let of_file = || Kind::of(&file.name, &text);
                let outcome = match kind.or(of_directory).or_else(of_file) {
                    Some(kind) => lint_beside(kind, &text, options, &beside),
                    None => lint_named(&file.name, &text, options),
                };
                Looked::new(file.name, text, outcome)
            }
        });
    looked.collect()
}

/// The settings of one file that the rules for another file need. If there are several pgsteer.toml,
/// it is unknown which one belongs to a pg_hba.conf.
fn beside(files: &[Input], kind: Option<Kind>) -> Beside {
    let text = |file: &Input| {
        let text = file.text.as_deref().ok()?;
        let is_its = kind.or_else(|| Kind::of(&file.name, text)) == Some(Kind::Pgsteer);
        is_its.then(|| text.to_owned())
    };
    let texts: Vec<String> = files.iter().filter_map(text).collect();
    match texts.as_slice() {
        [only] => Beside { check_login: check_login(only) },
        _ => Beside::default(),
    }
}

fn exit_code(files: &[Looked]) -> ExitCode {
    let has_errors =
        |file: &Looked| file.outcome.as_ref().is_ok_and(|report| report.count(Severity::Error) > 0);
    if files.iter().any(|file| file.outcome.is_err()) {
        ExitCode::from(cli::EXIT_WRONG_CONFIG)
    } else if files.iter().any(has_errors) {
        ExitCode::from(EXIT_ERRORS)
    } else {
        ExitCode::SUCCESS
    }
}

fn print(text: &str, code: ExitCode) -> ExitCode {
    // If stdout is closed, the exit code is the only answer.
    let _ = io::stdout().write_all(text.as_bytes());
    code
}

fn wrong(diagnostic: Diagnostic) -> ExitCode {
    report(&diagnostic.into(), "looked at");
    ExitCode::from(cli::EXIT_WRONG_CONFIG)
}
