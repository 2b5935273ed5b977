//! What was typed, and by which name the program was called.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Command, CommandFactory, FromArgMatches};

use super::{AGENT_EXAMPLES, Cli};

/// By what name the program was called, which says a part of what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// Its own.
    Pgsteer,
    /// `happac`: it is the agent.
    Happac,
    /// `pgsteer-check`: it is what HAProxy's external-check runs, which takes no flags.
    Check,
}

impl Name {
    fn of(program: Option<&OsString>) -> Name {
        match program.map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str) {
            Some("happac") => Name::Happac,
            Some("pgsteer-check") => Name::Check,
            _ => Name::Pgsteer,
        }
    }

    /// The words that are not typed under this name.
    fn implied(self) -> &'static [&'static str] {
        match self {
            Name::Pgsteer => &[],
            Name::Happac => &["agent"],
            Name::Check => &["check", "--external"],
        }
    }

    /// All commands, with the help that shows what is typed under this name.
    fn command(self) -> Command {
        match self {
            Name::Pgsteer | Name::Check => Cli::command(),
            Name::Happac => Cli::command().mut_subcommand("agent", |agent| {
                let examples = AGENT_EXAMPLES.replace("pgsteer agent", "happac");
                agent.override_usage("happac [OPTIONS]").after_help(examples)
            }),
        }
    }
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// It is wrong, or it asks for help or the version.
pub fn typed(line: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut words: Vec<OsString> = line.into_iter().collect();
    let name = Name::of(words.first());
    let flags = words.len().min(1);
    words.splice(flags..flags, name.implied().iter().map(OsString::from));
    Cli::from_arg_matches(&name.command().try_get_matches_from(words)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command as Wanted;

    fn line(words: &str) -> Result<Cli, clap::Error> {
        typed(words.split(' ').map(OsString::from))
    }

    #[test]
    fn the_name_says_what_is_wanted() {
        let Wanted::Agent(agent) = line("/usr/local/bin/happac -p 5556").unwrap().command else {
            panic!("happac is the agent")
        };
        assert_eq!(agent.port.as_deref(), Some("5556"));
        let Wanted::Check(check) = line("pgsteer-check 10.0.0.5 5000 n1 5432").unwrap().command
        else {
            panic!("pgsteer-check is a check")
        };
        assert_eq!(check.external.map(|words| words.len()), Some(4));
        assert!(matches!(line("pgsteer agent").unwrap().command, Wanted::Agent(_)));
    }

    #[test]
    fn help_shows_what_is_typed_under_that_name() {
        let shown = line("happac --help").unwrap_err().to_string();
        assert!(shown.contains("Usage: happac [OPTIONS]\n"), "{shown}");
        assert!(shown.contains("\n  happac -h 10.0.0.11\n"), "{shown}");
        assert!(!shown.contains("pgsteer agent"), "{shown}");
        let shown = line("pgsteer agent --help").unwrap_err().to_string();
        assert!(shown.contains("Usage: pgsteer agent [OPTIONS]\n"), "{shown}");
    }
}
