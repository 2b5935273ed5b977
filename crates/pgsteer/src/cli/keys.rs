//! The flags that set configuration keys, generated from the table of keys.

use std::fmt;
use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use pgsteer_config::error::ConfigErrors;
use pgsteer_config::field::{Given, Raw};
use pgsteer_config::key::{AnyKey, Command, Flag};
use pgsteer_config::sections::SECTIONS;
use pgsteer_config::written::Draft;

/// The command that the flags belong to.
pub trait Of {
    /// The command.
    const COMMAND: Command;
}

/// `pgsteer run`.
#[derive(Clone, Debug, Default)]
pub struct Run;

/// `pgsteer agent`.
#[derive(Clone, Debug, Default)]
pub struct Agent;

impl Of for Run {
    const COMMAND: Command = Command::Run;
}

impl Of for Agent {
    const COMMAND: Command = Command::Agent;
}

/// The flags of a command that set keys, as typed.
#[derive(Clone, Default)]
pub struct KeyFlags<C> {
    typed: Vec<(&'static str, Vec<String>)>,
    command: PhantomData<C>,
}

impl<C> KeyFlags<C> {
    /// The texts of a flag; none if it was not given.
    pub fn texts(&self, long: &str) -> &[String] {
        let found = self.typed.iter().find(|(name, _)| *name == long);
        found.map(|(_, texts)| texts.as_slice()).unwrap_or_default()
    }

    /// Adds texts as if the flag had been given; without a text nothing changes.
    pub fn with(mut self, long: &'static str, texts: impl IntoIterator<Item = String>) -> Self {
        let texts: Vec<String> = texts.into_iter().collect();
        if !texts.is_empty() {
            self.typed.push((long, texts));
        }
        self
    }
}

impl<C: Of> KeyFlags<C> {
    /// Writes the flags into the draft, and reports their errors.
    pub fn put(&self, draft: &mut Draft, errors: &mut ConfigErrors) {
        for (key, flag) in flags(C::COMMAND) {
            let texts = self.texts(flag.long);
            let origin = flag.origin();
            let raw = match texts {
                [] => continue,
                texts if flag.repeated => {
                    let each = texts.iter().map(|text| Given {
                        value: Raw::Flag(text.clone()),
                        origin: origin.clone(),
                    });
                    Raw::List(each.collect())
                }
                [text, ..] => Raw::Flag(text.clone()),
            };
            draft.put(key, raw, origin, errors);
        }
    }
}

/// Returns all flags of a command, with their keys.
fn flags(of: Command) -> impl Iterator<Item = (&'static dyn AnyKey, &'static Flag)> {
    let keys = SECTIONS.iter().flat_map(|section| section.keys.iter().copied());
    keys.flat_map(|key| key.flags().iter().map(move |flag| (key, flag)))
        .filter(move |(_, flag)| flag.command.includes(of))
}

fn id(flag: &Flag) -> &'static str {
    flag.long.trim_start_matches('-')
}

fn arg(flag: &'static Flag) -> Arg {
    let action = if flag.repeated { ArgAction::Append } else { ArgAction::Set };
    let arg = Arg::new(id(flag))
        .long(id(flag))
        .value_name(flag.value)
        .help(flag.help)
        .action(action)
        .allow_hyphen_values(matches!(flag.value, "SECONDS" | "NUMBER"));
    let arg = flag.short.into_iter().fold(arg, Arg::short);
    let arg = flag.alias.into_iter().fold(arg, Arg::visible_alias);
    flag.variable.into_iter().fold(arg, |arg, variable| arg.env(variable).hide_env(true))
}

impl<C: Of> Args for KeyFlags<C> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(flags(C::COMMAND).map(|(_, flag)| arg(flag)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        KeyFlags::<C>::augment_args(command)
    }
}

impl<C: Of> FromArgMatches for KeyFlags<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = flags(C::COMMAND).filter_map(|(_, flag)| {
            let texts = matches.get_many::<String>(id(flag))?;
            Some((flag.long, texts.cloned().collect()))
        });
        Ok(KeyFlags { typed: typed.collect(), command: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = KeyFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<C> fmt::Debug for KeyFlags<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.typed.fmt(f)
    }
}
