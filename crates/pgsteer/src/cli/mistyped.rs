//! What clap finds wrong with the command line, in the words of all other errors.

use std::error::Error as _;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::complaint::Complaint;

/// Help was asked for, or is shown because nothing was typed: that is no mistake to be told.
pub fn is_help(error: &Error) -> bool {
    let for_nothing = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    !error.use_stderr() || error.kind() == for_nothing
}

/// What is wrong, where, and what would be right.
pub fn mistyped(error: &Error) -> Complaint {
    let flag = text(error, ContextKind::InvalidArg);
    // Without the name of its value.
    let flag = flag.split(" <").next().unwrap_or_default();
    let value = text(error, ContextKind::InvalidValue);
    let what = match error.kind() {
        ErrorKind::UnknownArgument if flag.starts_with('-') => {
            format!("{flag}: there is no such flag")
        }
        ErrorKind::UnknownArgument => format!("{flag}: one word too many"),
        ErrorKind::ArgumentConflict if text(error, ContextKind::PriorArg).starts_with(flag) => {
            format!("{flag}: it is given twice")
        }
        ErrorKind::InvalidSubcommand => {
            format!("{}: there is no such command", text(error, ContextKind::InvalidSubcommand))
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{flag}: a value is missing"),
        ErrorKind::InvalidValue => format!("{flag}: `{value}` is not one of the possible words"),
        ErrorKind::ValueValidation => format!("{flag}: `{value}` is not possible"),
        ErrorKind::MissingRequiredArgument => format!("{flag}: it is missing"),
        _ => first_line(error),
    };
    Complaint::new(what, Some(remedy(error)))
}

fn remedy(error: &Error) -> String {
    let near = [ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let near = near.into_iter().chain([ContextKind::SuggestedSubcommand]);
    let near = near.map(|kind| text(error, kind)).find(|near| !near.is_empty());
    let possible = text(error, ContextKind::ValidValue);
    match (near, error.source()) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, Some(why)) => why.to_string(),
        (None, None) if !possible.is_empty() => format!("one of {possible}"),
        (None, None) if error.kind() == ErrorKind::ArgumentConflict => {
            "remove one of them".to_owned()
        }
        (None, None) => "--help tells what there is".to_owned(),
    }
}

/// What clap knows of `kind`; empty if it knows nothing.
fn text(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

/// What clap says by itself, where it is something rare.
fn first_line(error: &Error) -> String {
    let shown = error.to_string();
    let line = shown.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::typed;

    fn wrong(line: &str) -> Error {
        typed(line.split(' ').map(OsString::from)).unwrap_err()
    }

    #[test]
    fn mistakes_are_told_with_their_place_and_what_would_be_right() {
        let told = [
            "pgsteer run --nonsense",
            "pgsteer run --chek-user a",
            "pgsteer run extra",
            "pgsteer run --log-format yaml",
            "pgsteer run --log-format jsn",
            "pgsteer run --patroni",
            "pgsteer run --write 1 --write 2",
            "pgsteer run --check-config=yes",
            "pgsteer jump",
            "pgsteer chek",
            "pgsteer render",
            "pgsteer render everything",
            "pgsteer render haproxy --check",
            "pgsteer render keepalived --router-id 0",
            "pgsteer render keepalived --router-id x",
            "pgsteer lint",
            "pgsteer lint a --max-connections 0",
            "pgsteer check primary --timeout 0",
            "pgsteer check primary --timeout soon",
            "pgsteer-check --help",
            "happac -h",
        ]
        .map(|line| {
            let complaint = anyhow::Error::from(mistyped(&wrong(line)));
            format!("$ {line}\n{}", crate::complaint::in_lines(&complaint))
        });
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn help_is_no_mistake() {
        for line in ["pgsteer", "pgsteer --help", "pgsteer run --help", "pgsteer --version"] {
            assert!(is_help(&wrong(line)), "{line}");
        }
        assert!(!is_help(&wrong("pgsteer jump")));
    }
}
