//! Parses the command line, according to the name by which the program was called.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory, FromArgMatches};

use super::{AGENT_EXAMPLES, Cli};

/// The arguments that HAProxy passes, and the form for a person.
const CHECK_USAGE: &str = "pgsteer-check PROXY_ADDRESS PROXY_PORT SERVER_ADDRESS SERVER_PORT
       pgsteer check [OPTIONS] [CHECK]";

/// The name by which the program was called, which selects a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// The program's own name.
    Pgsteer,
    /// `happac`: the agent.
    Happac,
    /// `pgsteer-check`: the command of HAProxy's external-check, which passes no flags.
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

    /// The words that this name puts before the typed ones. A flag shows that the caller of
    /// `pgsteer-check` is not HAProxy.
    fn implied(self, typed: &[OsString]) -> &'static [&'static str] {
        let is_flag = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
        match self {
            Name::Pgsteer => &[],
            Name::Happac => &["agent"],
            Name::Check if typed.first().is_some_and(is_flag) => &["check"],
            Name::Check => &["check", "--external"],
        }
    }

    /// Returns the error if the number of typed words is wrong for this name.
    fn miscounted(self, typed: &[OsString]) -> Option<clap::Error> {
        let is_external = self.implied(typed).contains(&"--external");
        (is_external && typed.len() != 4).then(|| {
            let what = format!(
                "HAProxy's external-check passes four words: address and port of the proxy, address and \
                 port of the server; here are {}",
                typed.len()
            );
            Cli::command().override_usage(CHECK_USAGE).error(ErrorKind::WrongNumberOfValues, what)
        })
    }

    /// All commands, with the help for the syntax under this name.
    fn command(self) -> Command {
        match self {
            Name::Pgsteer => Cli::command(),
            Name::Check => {
                Cli::command().mut_subcommand("check", |check| check.override_usage(CHECK_USAGE))
            }
            Name::Happac => Cli::command().mut_subcommand("agent", |agent| {
                let examples = AGENT_EXAMPLES.replace("pgsteer agent", "happac");
                agent.override_usage("happac [OPTIONS]").after_help(examples)
            }),
        }
    }
}

/// Parses the command line, which begins with the program's name.
///
/// # Errors
/// The command line is invalid, or it requests help or the version.
pub fn typed(line: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut words: Vec<OsString> = line.into_iter().collect();
    let name = Name::of(words.first());
    let flags = words.len().min(1);
    if let Some(error) = name.miscounted(&words[flags..]) {
        return Err(error);
    }
    let implied = name.implied(&words[flags..]);
    words.splice(flags..flags, implied.iter().map(OsString::from));
    let mut cli = Cli::from_arg_matches(&name.command().try_get_matches_from(words)?)?;
    if let super::Command::Agent(agent) = &mut cli.command {
        agent.is_happac = name == Name::Happac;
    }
    Ok(cli)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command as Wanted;

    fn line(words: &str) -> Result<Cli, clap::Error> {
        typed(words.split(' ').map(OsString::from))
    }

    #[test]
    fn the_program_name_selects_the_command() {
        let Wanted::Agent(agent) = line("/usr/local/bin/happac -p 5556").unwrap().command else {
            panic!("happac is the agent")
        };
        assert_eq!(agent.port.as_deref(), Some("5556"));
        assert!(agent.is_happac);
        let Wanted::Check(check) = line("pgsteer-check 10.0.0.5 5000 n1 5432").unwrap().command
        else {
            panic!("pgsteer-check is a check")
        };
        assert_eq!(check.external.map(|words| words.len()), Some(4));
        let Wanted::Agent(agent) = line("pgsteer agent").unwrap().command else {
            panic!("pgsteer agent is the agent")
        };
        assert!(!agent.is_happac);
    }

    #[test]
    fn help_shows_what_is_typed_under_that_name() {
        let shown = line("happac --help").unwrap_err().to_string();
        assert!(shown.contains("Usage: happac [OPTIONS]\n"), "{shown}");
        assert!(shown.contains("\n  happac -h 10.0.0.11\n"), "{shown}");
        assert!(!shown.contains("pgsteer agent"), "{shown}");
        let shown = line("pgsteer-check --help").unwrap_err().to_string();
        assert!(shown.contains("Usage: pgsteer-check PROXY_ADDRESS PROXY_PORT"), "{shown}");
        assert!(shown.contains("external-check command /usr/bin/pgsteer-check"), "{shown}");
        let shown = line("pgsteer agent --help").unwrap_err().to_string();
        assert!(shown.contains("Usage: pgsteer agent [OPTIONS]\n"), "{shown}");
    }

    #[test]
    fn too_few_words_of_haproxys_check_give_an_error_with_the_expected_words() {
        for (words, count) in [("pgsteer-check", 0), ("pgsteer-check 10.0.0.5 5000", 2)] {
            let shown = line(words).unwrap_err().to_string();
            assert!(shown.contains(&format!("port of the server; here are {count}")), "{shown}");
            assert!(shown.contains("Usage: pgsteer-check PROXY_ADDRESS"), "{shown}");
            assert!(!shown.contains("--external"), "{shown}");
        }
    }
}
