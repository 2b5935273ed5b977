//! `pgsteer lint`: reads the files, and prints what the core finds in them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use pgsteer_core::lint::finding::Severity;
use pgsteer_core::lint::show::{self, Looked};
use pgsteer_core::lint::{FILE_BYTES_MAX, Kind, Options, lint, lint_named, rule, text};
use pgsteer_core::render::HaproxyVersion;

use crate::cli::{self, LintArgs, LintFormat};
use crate::complaint::{Complaint, complain};

/// What a file of that name means.
const STDIN: &str = "-";
/// What is said when errors were found.
const EXIT_ERRORS: u8 = 1;

/// Judges the files that `args` name. Exit 0: no errors. 1: errors. 2: a file that cannot be read or
/// understood, or wrong flags.
pub fn run(args: &LintArgs) -> ExitCode {
    if args.list {
        return print(&show::list(), ExitCode::SUCCESS);
    }
    if let Some(id) = &args.explain {
        return match rule::find(id) {
            Some(rule) => print(rule.page, ExitCode::SUCCESS),
            None => wrong(Complaint::new(
                format!("--explain: there is no rule `{id}`"),
                Some("--list names them".to_owned()),
            )),
        };
    }
    let options = match options(args) {
        Ok(options) => options,
        Err(complaint) => return wrong(complaint),
    };
    let files: Vec<Looked> =
        args.files.iter().map(|name| look(name, args.kind, &options)).collect();
    let shown = match args.format {
        LintFormat::Text => show::text(&files),
        LintFormat::Json => show::json(&files),
        LintFormat::Sarif => show::sarif(&files, env!("CARGO_PKG_VERSION")),
    };
    print(&shown, exit_code(&files))
}

fn options(args: &LintArgs) -> Result<Options, Complaint> {
    let haproxy = match &args.haproxy_version {
        None => HaproxyVersion::OLDEST,
        Some(text) => HaproxyVersion::read(text).map_err(|refusal| {
            Complaint::new(format!("--haproxy-version: {refusal}"), refusal.remedy())
        })?,
    };
    Ok(Options { haproxy, max_connections: args.max_connections })
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

fn look(name: &str, kind: Option<Kind>, options: &Options) -> Looked {
    let shown = if name == STDIN { "(stdin)" } else { name }.to_owned();
    let bytes = match read(name) {
        Ok(bytes) => bytes,
        Err(error) => {
            let outcome = Err(format!("cannot be read: {error}"));
            return Looked { name: shown, source: String::new(), outcome };
        }
    };
    let source = match text(&bytes) {
        Ok(text) => text.into_owned(),
        Err(why) => return Looked::new(shown, String::new(), Err(why)),
    };
    let outcome = match kind {
        Some(kind) => lint(kind, &source, options),
        None => lint_named(name, &source, options),
    };
    Looked::new(shown, source, outcome)
}

fn read(name: &str) -> io::Result<Vec<u8>> {
    // One byte more than is allowed shows that the file is too large.
    let bytes_max = FILE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    match name {
        STDIN => io::stdin().lock().take(bytes_max).read_to_end(&mut bytes)?,
        name => File::open(name)?.take(bytes_max).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

fn print(text: &str, code: ExitCode) -> ExitCode {
    // Whoever does not read it has the exit code.
    let _ = io::stdout().write_all(text.as_bytes());
    code
}

fn wrong(complaint: Complaint) -> ExitCode {
    complain(&complaint.into(), "looked at");
    ExitCode::from(cli::EXIT_WRONG_CONFIG)
}
