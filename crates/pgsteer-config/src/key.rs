//! One key of the configuration: its name, accepted values, default and help.
//!
//! The reader of the file, the flags, the example file, the reference and "did you mean" are
//! generated from these. To add a key, add an entry to the file of its section.

use crate::field::{Leaf, Raw};
use crate::origin::Origin;
use crate::problem::Problem;

/// Receives each problem, with its place.
pub type Report<'r> = dyn FnMut(Origin, Problem) + 'r;

/// The kind of values that a key accepts.
pub trait Kind: Copy + Sync + 'static {
    /// The value.
    type Out;

    /// Reads a single value; errors show `example` as a valid one.
    ///
    /// # Errors
    /// The problem of the value.
    fn scalar(&self, example: &str, raw: &Raw) -> Result<Self::Out, Problem>;

    /// Reads a value, and reports all its problems.
    fn read(&self, example: &str, leaf: &Leaf, report: &mut Report<'_>) -> Option<Self::Out> {
        let read = self.scalar(example, &leaf.value.value);
        read.map_err(|problem| report(leaf.value.origin.clone(), problem)).ok()
    }

    /// The place that later errors about the value refer to.
    fn origin<'l>(&self, leaf: &'l Leaf) -> &'l Origin {
        &leaf.value.origin
    }

    /// The accepted values, in words.
    fn accepts(&self) -> String;

    /// The default as it is written in a file, if it is fixed.
    fn default_text(&self) -> Option<String> {
        None
    }
}

/// A kind with a default.
pub trait Usual: Kind {
    /// The value of a key that is absent.
    fn usual(&self) -> Self::Out;
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key<K> {
    /// The section, as `proxy`; `services` and `members` for those of all services and members.
    pub section: &'static str,
    /// The name.
    pub name: &'static str,
    /// The accepted values.
    pub kind: K,
    /// A value that is accepted, as it is written in a file.
    pub example: &'static str,
    /// The behaviour without the key, if there is no fixed default.
    pub unset: Option<&'static str>,
    /// What it does, in whole sentences.
    pub help: &'static str,
    /// The flags of the command line that set it.
    pub flags: &'static [Flag],
    /// The key is for services of replicas; the example file shows it at one.
    pub for_replicas: bool,
}

/// A flag of the command line that sets a key.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The command that has it.
    pub command: Command,
    /// The flag, with its dashes.
    pub long: &'static str,
    /// The letter, if it has one.
    pub short: Option<char>,
    /// The environment variable that sets the same.
    pub variable: Option<&'static str>,
    /// The name of its value in the help.
    pub value: &'static str,
    /// The help.
    pub help: &'static str,
    /// Another spelling.
    pub alias: Option<&'static str>,
    /// The flag may be repeated.
    pub repeated: bool,
}

impl Flag {
    /// A flag of `command`; the functions below add the other parts.
    pub const fn new(command: Command, long: &'static str, value: &'static str) -> Flag {
        let (short, variable, alias) = (None, None, None);
        Flag { command, long, short, variable, value, help: "", alias, repeated: false }
    }

    /// Sets the help.
    pub const fn help(self, help: &'static str) -> Flag {
        Flag { help, ..self }
    }

    /// Sets the letter.
    pub const fn short(self, short: char) -> Flag {
        Flag { short: Some(short), ..self }
    }

    /// Sets the environment variable.
    pub const fn variable(self, variable: &'static str) -> Flag {
        Flag { variable: Some(variable), ..self }
    }

    /// Sets the other spelling.
    pub const fn alias(self, alias: &'static str) -> Flag {
        Flag { alias: Some(alias), ..self }
    }

    /// The place that errors about the flag's value refer to.
    pub fn origin(&self) -> Origin {
        match self.variable {
            Some(variable) => Origin::FlagOrVariable(self.long, variable),
            None => Origin::Flag(self.long),
        }
    }

    /// Allows the flag several times.
    pub const fn repeated(self) -> Flag {
        Flag { repeated: true, ..self }
    }
}

/// The commands that have flags for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `pgsteer run`.
    Run,
    /// `pgsteer agent`.
    Agent,
    /// Both.
    Both,
}

impl Command {
    /// Returns true if `other` is this command, or this is both.
    pub fn includes(self, other: Command) -> bool {
        self == Command::Both || self == other
    }
}

impl<K: Kind> Key<K> {
    /// A key; the functions below add the other parts.
    pub const fn new(section: &'static str, name: &'static str, kind: K) -> Key<K> {
        let (unset, for_replicas) = (None, false);
        Key { section, name, kind, example: "", unset, help: "", flags: &[], for_replicas }
    }

    /// Sets the example, as it is written in a file.
    pub const fn example(self, example: &'static str) -> Key<K> {
        Key { example, ..self }
    }

    /// Sets the behaviour without the key, if there is no fixed default.
    pub const fn unset(self, unset: &'static str) -> Key<K> {
        Key { unset: Some(unset), ..self }
    }

    /// Marks the key as one for services of replicas.
    pub const fn for_replicas(self) -> Key<K> {
        Key { for_replicas: true, ..self }
    }

    /// Sets the help.
    pub const fn help(self, help: &'static str) -> Key<K> {
        Key { help, ..self }
    }

    /// Sets the flags.
    pub const fn flags(self, flags: &'static [Flag]) -> Key<K> {
        Key { flags, ..self }
    }

    /// Reads the written value, and reports all its problems.
    pub fn read(&self, leaf: &Leaf, report: &mut Report<'_>) -> Option<K::Out> {
        self.kind.read(&format!("{} = {}", self.name, self.example), leaf, report)
    }
}

/// A key of any kind.
pub trait AnyKey: Sync {
    /// Its section.
    fn section(&self) -> &'static str;
    /// Its name.
    fn name(&self) -> &'static str;
    /// What it does.
    fn help(&self) -> &'static str;
    /// Its flags.
    fn flags(&self) -> &'static [Flag];
    /// The accepted values, in words.
    fn accepts(&self) -> String;
    /// A valid value, as it is written in a file.
    fn example(&self) -> &'static str;
    /// The default as it is written in a file.
    fn default_text(&self) -> Option<String>;
    /// The behaviour without the key, if there is no fixed default.
    fn unset(&self) -> Option<&'static str>;
    /// Returns true if the key is for services of replicas.
    fn for_replicas(&self) -> bool;
    /// Reports all problems of the written value.
    fn check(&self, leaf: &Leaf, report: &mut Report<'_>);
}

impl<K: Kind> AnyKey for Key<K> {
    fn section(&self) -> &'static str {
        self.section
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn flags(&self) -> &'static [Flag] {
        self.flags
    }

    fn accepts(&self) -> String {
        self.kind.accepts()
    }

    fn example(&self) -> &'static str {
        self.example
    }

    fn default_text(&self) -> Option<String> {
        self.kind.default_text().filter(|_| self.unset.is_none())
    }

    fn unset(&self) -> Option<&'static str> {
        self.unset
    }

    fn for_replicas(&self) -> bool {
        self.for_replicas
    }

    fn check(&self, leaf: &Leaf, report: &mut Report<'_>) {
        self.read(leaf, report);
    }
}

/// A section: its name, its purpose, and its keys in the order of the documents.
pub struct SectionKeys {
    /// The name, as `proxy`.
    pub name: &'static str,
    /// Its purpose.
    pub help: &'static str,
    /// Its keys.
    pub keys: &'static [&'static dyn AnyKey],
    /// A change takes effect at a restart of pgsteer, not at a reload.
    pub at_restart: bool,
}

impl SectionKeys {
    /// The names of the keys.
    pub fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name()).collect()
    }
}
