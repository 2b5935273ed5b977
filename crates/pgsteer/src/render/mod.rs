//! `pgsteer render`: reads the core's inputs, and writes the rendered files.

mod ask;
mod header;
mod set;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use pgsteer_core::claim::Found;
use pgsteer_core::settings::Config;
use pgsteer_files::render::refusal::Refusal;
use pgsteer_files::render::{Kind, Profile, Rendered, Request, render};

use crate::cli::{self, RenderArgs};
use crate::diagnostic::{Diagnostic, report, report_all};

use self::set::{Set, State};

/// The exit code of `--check` if a file differs.
const EXIT_DIFFERS: u8 = 1;

/// The action that an error prevents.
const UNDONE: &str = "written";

/// Renders what `args` request. Exit 0: done, or no file differs. 1: a file differs from the
/// existing one. 2: the request is invalid or failed, and nothing was written.
pub fn run(args: &RenderArgs) -> ExitCode {
    if args.list {
        return list();
    }
    let Some(kind) = args.kind else {
        let remedy = Some("--list explains them".to_owned());
        return wrong(&Diagnostic::new("which kind?", remedy).into());
    };
    if args.check_password_file.is_some() {
        let what = "--check-password-file: no file that is rendered has the password of the checks";
        return wrong(&Diagnostic::new(what, Some("leave it out".to_owned())).into());
    }
    let config = match cli::load_render(args) {
        Ok(config) => config,
        Err(errors) => {
            report_all(&errors, errors.len(), UNDONE);
            return ExitCode::from(cli::EXIT_WRONG_CONFIG);
        }
    };
    match made(args, kind, &config).and_then(|files| put(args, files)) {
        Ok(code) => code,
        Err(error) => wrong(&error),
    }
}

fn made(args: &RenderArgs, kind: Kind, config: &Config) -> anyhow::Result<Vec<Rendered>> {
    let members: Vec<Found> = ask::members(args, &config.cluster.members)?;
    let options = ask::options(args)?;
    let template = args.template.as_deref().map(read_text).transpose()?;
    let made_from = header::text(config, std::env::args());
    let request = Request {
        config,
        members: &members,
        options: &options,
        made_from: &made_from,
        template: template.as_deref(),
    };
    let refused = |refusal: Refusal| Diagnostic::new(refusal.to_string(), refusal.remedy()).into();
    render(kind, &request).map_err(refused)
}

fn put(args: &RenderArgs, files: Vec<Rendered>) -> anyhow::Result<ExitCode> {
    let Some(folder) = &args.out else {
        print(&files).context("writing to stdout")?;
        return Ok(ExitCode::SUCCESS);
    };
    let set = Set::compare(folder, files)?;
    let differs = set.states().any(|(_, state)| state != State::Same);
    if !args.check {
        set.write()?;
    }
    let mut out = io::stdout();
    for (path, state) in set.states() {
        // A closed stdout does not affect the files.
        let _ = writeln!(out, "{:<10} {}", state.word(args.check), path.display());
    }
    let code = if args.check && differs { EXIT_DIFFERS } else { 0 };
    Ok(ExitCode::from(code))
}

/// Prints one file as it is, or several files with their names above them.
fn print(files: &[Rendered]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for file in files {
        if files.len() > 1 {
            writeln!(out, "==> {} <==", file.path)?;
        }
        out.write_all(file.text.as_bytes())?;
    }
    out.flush()
}

fn list() -> ExitCode {
    let kinds = Kind::ALL.iter().map(|kind| format!("  {:<14}{}\n", kind.as_str(), kind.about()));
    let profiles = Profile::ALL.iter();
    let profiles =
        profiles.map(|profile| format!("  {:<14}{}\n", profile.as_str(), profile.about()));
    let text = format!(
        "Kinds, as in `pgsteer render haproxy`:\n{}\nProfiles of haproxy, as in `--profile sql`:\n{}",
        kinds.collect::<String>(),
        profiles.collect::<String>()
    );
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn wrong(error: &anyhow::Error) -> ExitCode {
    report(error, UNDONE);
    ExitCode::from(cli::EXIT_WRONG_CONFIG)
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).map_err(|error| Diagnostic::unreadable(file, &error).into())
}
