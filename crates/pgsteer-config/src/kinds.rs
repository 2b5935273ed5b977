//! The kinds of values: times, numbers, words, addresses, files, lists.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pgsteer_core::units::{near_time, seconds_text};

use crate::address;
use crate::conflict::Conflict;
use crate::field::{Given, Leaf, Raw};
use crate::key::{Kind, Report, Usual};
use crate::lag::{lag_bytes, lag_bytes_in_range};
use crate::limits::{PORT, TAGS_MAX};
use crate::origin::Origin;
use crate::plain;
use crate::problem::{Problem, Shown};
use crate::range::{Seconds, Whole};
use crate::suggest::nearest;

fn wrong_type(wants: &'static str, example: &str, raw: &Raw) -> Problem {
    Problem::WrongType { wants, example: example.to_owned(), found: raw.kind() }
}

impl Kind for Seconds {
    type Out = Duration;

    fn scalar(&self, _: &str, raw: &Raw) -> Result<Duration, Problem> {
        match raw {
            Raw::Flag(text) | Raw::Whole(text) | Raw::Fraction(text) => Seconds::read(self, text),
            other => {
                let near = match other {
                    Raw::Text(text) => near_time(text),
                    _ => None,
                };
                Err(Problem::NotSeconds {
                    found: other.kind().to_owned(),
                    range: *self,
                    near: near.filter(|time| self.contains(*time)).map(seconds_text),
                })
            }
        }
    }

    fn accepts(&self) -> String {
        self.range_text()
    }

    fn default_text(&self) -> Option<String> {
        self.default().map(seconds_text)
    }
}

impl Usual for Seconds {
    fn usual(&self) -> Duration {
        Seconds::usual(self)
    }
}

impl Kind for Whole {
    type Out = u64;

    fn scalar(&self, _: &str, raw: &Raw) -> Result<u64, Problem> {
        match raw {
            Raw::Flag(text) | Raw::Whole(text) => Whole::read(self, text),
            other => Err(Problem::NotWhole { found: other.kind().to_owned(), range: *self }),
        }
    }

    fn accepts(&self) -> String {
        self.range_text()
    }

    fn default_text(&self) -> Option<String> {
        self.default().map(|number| number.to_string())
    }
}

/// A string that a function parses.
pub struct Text<T: 'static> {
    read: fn(&str) -> Result<T, Problem>,
    accepts: &'static str,
    usual: Option<&'static str>,
}

impl<T> Clone for Text<T> {
    fn clone(&self) -> Text<T> {
        *self
    }
}

impl<T> Copy for Text<T> {}

impl<T> Text<T> {
    /// A string that `read` parses; `accepts` describes the valid strings.
    pub const fn new(accepts: &'static str, read: fn(&str) -> Result<T, Problem>) -> Text<T> {
        Text { read, accepts, usual: None }
    }

    /// The same with the text of the default, which the section sets.
    pub const fn unset(self, usual: &'static str) -> Text<T> {
        Text { read: self.read, accepts: self.accepts, usual: Some(usual) }
    }

    /// The path of a file.
    pub const fn file() -> Text<PathBuf> {
        Text::new("path of a file", plain::path)
    }
}

impl Text<String> {
    /// The same with a default.
    pub const fn or(self, usual: &'static str) -> Text<String> {
        self.unset(usual)
    }
}

impl<T: 'static> Kind for Text<T> {
    type Out = T;

    fn scalar(&self, example: &str, raw: &Raw) -> Result<T, Problem> {
        match raw {
            Raw::Flag(text) | Raw::Text(text) => (self.read)(text),
            other => Err(wrong_type("a string", example, other)),
        }
    }

    fn accepts(&self) -> String {
        self.accepts.to_owned()
    }

    fn default_text(&self) -> Option<String> {
        self.usual.map(|text| format!("\"{text}\""))
    }
}

impl Usual for Text<String> {
    fn usual(&self) -> String {
        self.usual.unwrap_or_default().to_owned()
    }
}

/// One of several words.
#[derive(Clone, Copy)]
pub struct Choice<T: 'static> {
    /// The value without the key.
    pub usual: T,
    /// All choices.
    pub all: &'static [T],
    /// The word of each.
    pub word: fn(T) -> &'static str,
    /// Words of other programs, each with the word that was probably intended.
    pub others: &'static [(&'static str, &'static str)],
}

impl<T: Copy + 'static> Choice<T> {
    /// Words, with the default `usual`.
    pub const fn new(usual: T, all: &'static [T], word: fn(T) -> &'static str) -> Choice<T> {
        Choice { usual, all, word, others: &[] }
    }

    fn words(&self) -> Vec<&'static str> {
        self.all.iter().map(|choice| (self.word)(*choice)).collect()
    }
}

impl<T: Copy + Sync + 'static> Kind for Choice<T> {
    type Out = T;

    fn scalar(&self, example: &str, raw: &Raw) -> Result<T, Problem> {
        let (Raw::Flag(text) | Raw::Text(text)) = raw else {
            return Err(wrong_type("a string", example, raw));
        };
        if let Some(found) = self.all.iter().find(|choice| (self.word)(**choice) == text) {
            return Ok(*found);
        }
        let words = self.words();
        let other = self.others.iter().find(|(other, _)| other == text);
        Err(Problem::UnknownWord {
            found: Shown::of(text),
            near: other.map(|(_, meant)| *meant).or_else(|| nearest(text, &words)),
            words,
        })
    }

    fn accepts(&self) -> String {
        let words: Vec<String> = self.words().iter().map(|word| format!("`{word}`")).collect();
        words.join(", ")
    }

    fn default_text(&self) -> Option<String> {
        Some(format!("\"{}\"", (self.word)(self.usual)))
    }
}

impl<T: Copy + Sync + 'static> Usual for Choice<T> {
    fn usual(&self) -> T {
        self.usual
    }
}

/// A lag limit in bytes: a number of them, or a string with a unit.
#[derive(Clone, Copy)]
pub struct Bytes;

impl Kind for Bytes {
    type Out = u64;

    fn scalar(&self, example: &str, raw: &Raw) -> Result<u64, Problem> {
        match raw {
            Raw::Flag(text) | Raw::Text(text) => lag_bytes(text),
            Raw::Whole(number) => lag_bytes_in_range(number.parse().unwrap_or(0), number),
            other => Err(wrong_type("a size", example, other)),
        }
    }

    fn accepts(&self) -> String {
        "size with B, kB, MB, GB or TB".to_owned()
    }
}

/// A TCP port.
#[derive(Clone, Copy)]
pub struct Port;

impl Kind for Port {
    type Out = u16;

    fn scalar(&self, _: &str, raw: &Raw) -> Result<u16, Problem> {
        match raw {
            Raw::Flag(text) | Raw::Whole(text) => address::port(text),
            other => Err(Problem::NotWhole { found: other.kind().to_owned(), range: PORT }),
        }
    }

    fn accepts(&self) -> String {
        "TCP port".to_owned()
    }
}

/// An address to listen on: a string, or a port alone.
#[derive(Clone, Copy)]
pub struct Listen;

impl Kind for Listen {
    type Out = SocketAddr;

    fn scalar(&self, example: &str, raw: &Raw) -> Result<SocketAddr, Problem> {
        match raw {
            Raw::Flag(text) | Raw::Text(text) | Raw::Whole(text) => address::listen(text),
            other => Err(wrong_type("an address to listen on", example, other)),
        }
    }

    fn accepts(&self) -> String {
        "address to listen on".to_owned()
    }
}

/// An address to listen on, or `false` or `"none"`.
#[derive(Clone, Copy)]
pub struct ListenOrNone {
    /// The address without the key.
    pub usual: SocketAddr,
}

impl Kind for ListenOrNone {
    type Out = Option<SocketAddr>;

    fn scalar(&self, example: &str, raw: &Raw) -> Result<Option<SocketAddr>, Problem> {
        match raw {
            Raw::Boolean(false) => Ok(None),
            Raw::Boolean(true) => Err(Problem::WrongType {
                wants: "an address to listen on, or false",
                example: example.to_owned(),
                found: "true",
            }),
            Raw::Flag(text) | Raw::Text(text) => address::listen_or_none(text),
            other => Listen.scalar(example, other).map(Some),
        }
    }

    fn accepts(&self) -> String {
        "address to listen on, or `false`".to_owned()
    }

    fn default_text(&self) -> Option<String> {
        Some(format!("\"{}\"", self.usual))
    }
}

impl Usual for ListenOrNone {
    fn usual(&self) -> Option<SocketAddr> {
        Some(self.usual)
    }
}

/// A list of texts that `read` parses one by one.
pub struct List<T: 'static> {
    accepts: &'static str,
    read: fn(&str) -> Result<T, Problem>,
}

impl<T> Clone for List<T> {
    fn clone(&self) -> List<T> {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T> List<T> {
    /// A list of `accepts`, whose items `read` parses.
    pub const fn new(accepts: &'static str, read: fn(&str) -> Result<T, Problem>) -> List<T> {
        List { accepts, read }
    }
}

impl<T: 'static> Kind for List<T> {
    type Out = Vec<Given<T>>;

    fn scalar(&self, example: &str, raw: &Raw) -> Result<Vec<Given<T>>, Problem> {
        Err(wrong_type("a list", example, raw))
    }

    fn read(&self, example: &str, leaf: &Leaf, report: &mut Report<'_>) -> Option<Vec<Given<T>>> {
        let Raw::List(items) = &leaf.value.value else {
            report(leaf.value.origin.clone(), wrong_type("a list", example, &leaf.value.value));
            return None;
        };
        let mut values = Vec::new();
        for item in items {
            let value = match &item.value {
                Raw::Flag(text) | Raw::Text(text) => (self.read)(text),
                other => Err(wrong_type("a string", example, other)),
            };
            match value {
                Ok(value) => values.push(Given { value, origin: item.origin.clone() }),
                Err(problem) => report(item.origin.clone(), problem),
            }
        }
        (values.len() == items.len()).then_some(values)
    }

    fn origin<'l>(&self, leaf: &'l Leaf) -> &'l Origin {
        &leaf.key
    }

    fn accepts(&self) -> String {
        format!("list of {}", self.accepts)
    }
}

/// A table of texts by name. Patroni's tags may be booleans and numbers; they are compared as text.
#[derive(Clone, Copy)]
pub struct Table {
    /// What it contains, as `tags`.
    pub of: &'static str,
}

impl Kind for Table {
    type Out = BTreeMap<String, String>;

    fn scalar(&self, example: &str, raw: &Raw) -> Result<BTreeMap<String, String>, Problem> {
        Err(wrong_type("a table", example, raw))
    }

    fn read(
        &self,
        example: &str,
        leaf: &Leaf,
        report: &mut Report<'_>,
    ) -> Option<BTreeMap<String, String>> {
        let Raw::Table(entries) = &leaf.value.value else {
            report(leaf.value.origin.clone(), wrong_type("a table", example, &leaf.value.value));
            return None;
        };
        let found = entries.len();
        if found > TAGS_MAX {
            report(leaf.key.clone(), Conflict::TooMany { found, max: TAGS_MAX }.into());
            return None;
        }
        let mut tags = BTreeMap::new();
        for (name, given) in entries {
            match &given.value {
                Raw::Text(text) | Raw::Whole(text) | Raw::Fraction(text) => {
                    tags.insert(name.clone(), text.clone());
                }
                Raw::Boolean(flag) => drop(tags.insert(name.clone(), flag.to_string())),
                other => {
                    let wants = "a string, a number or a boolean";
                    report(given.origin.clone(), wrong_type(wants, example, other));
                }
            }
        }
        Some(tags)
    }

    fn origin<'l>(&self, leaf: &'l Leaf) -> &'l Origin {
        &leaf.key
    }

    fn accepts(&self) -> String {
        format!("table of {}", self.of)
    }
}
