//! The configuration as written: what the file and the flags say, and where they say it.
//!
//! A value that was wrong when it was read has been reported already. It is remembered as wrong, so
//! that no later check reports it as missing. [`Draft::finish`] makes the settings of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgsteer_core::names::{MemberName, ServiceName};

use crate::error::{ConfigErrors, Place};
use crate::key::{AnyKey, Key, Kind, Usual};
use crate::purpose::Purpose;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub place: Place,
}

/// What was written for one key: nothing, a value, or something wrong that has been reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<T> {
    given: Option<Given<T>>,
    wrong: bool,
}

impl<T> Default for Field<T> {
    fn default() -> Field<T> {
        Field { given: None, wrong: false }
    }
}

impl<T> Field<T> {
    /// A value written at `place`.
    pub fn new(value: T, place: Place) -> Field<T> {
        Field { given: Some(Given { value, place }), wrong: false }
    }

    /// Something wrong, which has been reported.
    pub fn wrong() -> Field<T> {
        Field { given: None, wrong: true }
    }

    /// Nothing was written.
    pub fn is_absent(&self) -> bool {
        self.given.is_none() && !self.wrong
    }

    /// Something wrong was written, and has been reported.
    pub fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// The value with its place, if there is a right one.
    pub fn given(&self) -> Option<&Given<T>> {
        self.given.as_ref()
    }

    /// The value, if there is a right one.
    pub fn value(self) -> Option<T> {
        self.given.map(|given| given.value)
    }

    /// The value, or `default` if there is no right one.
    pub fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }

    /// The value to change; `empty` written at `place` if there is none yet.
    pub fn get_or_insert(&mut self, empty: impl FnOnce() -> T, place: Place) -> &mut T {
        let given = self.given.get_or_insert_with(|| Given { value: empty(), place });
        &mut given.value
    }
}

/// A value as written, before its key has read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// The text of a flag or an environment variable: any type.
    Flag(String),
    /// A string.
    Text(String),
    /// A whole number, in decimal digits.
    Whole(String),
    /// A number with a fraction, `inf` or `nan`.
    Fraction(String),
    /// A boolean.
    Boolean(bool),
    /// A date or time.
    Date,
    /// A list.
    List(Vec<Given<Raw>>),
    /// A table whose keys the operator chooses.
    Table(Vec<(String, Given<Raw>)>),
}

impl Raw {
    /// The type in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Raw::Flag(_) | Raw::Text(_) => "a string",
            Raw::Whole(_) => "a whole number",
            Raw::Fraction(_) => "a number with a fraction",
            Raw::Boolean(_) => "a boolean",
            Raw::Date => "a date or time",
            Raw::List(_) => "a list",
            Raw::Table(_) => "a table",
        }
    }
}

/// A value as written, with the place of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where the key stands.
    pub key: Place,
    /// The value.
    pub value: Given<Raw>,
}

/// One section as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    leaves: BTreeMap<&'static str, Leaf>,
    wrong: bool,
}

impl Section {
    /// What was written for `key`.
    pub fn get<K: Kind>(&self, key: &Key<K>) -> Field<K::Out> {
        let Some(leaf) = self.leaves.get(key.name) else {
            return if self.wrong { Field::wrong() } else { Field::default() };
        };
        match key.read(leaf, &mut |_, _| {}) {
            Some(value) => Field::new(value, key.kind.place(leaf).clone()),
            None => Field::wrong(),
        }
    }

    /// The value of `key`, or its default.
    pub fn or_usual<K: Usual>(&self, key: &Key<K>) -> K::Out {
        self.get(key).or(key.kind.usual())
    }

    /// A section that is no table, which has been reported: all its keys are wrong.
    pub fn wrong() -> Section {
        Section { leaves: BTreeMap::new(), wrong: true }
    }

    /// Writes a value. The caller reports what is wrong with it.
    pub fn write(&mut self, key: &'static str, leaf: Leaf) {
        self.leaves.insert(key, leaf);
    }

    /// Writes the text of a flag, and reports what is wrong with it.
    pub fn put(&mut self, key: &dyn AnyKey, value: Raw, place: Place, errors: &mut ConfigErrors) {
        let leaf = Leaf { key: place.clone(), value: Given { value, place } };
        key.check(&leaf, &mut |place, problem| errors.push(place, problem));
        self.write(key.name(), leaf);
    }
}

/// The services by name.
pub type Services = BTreeMap<ServiceName, Given<Section>>;

/// All that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The command that needs the configuration. It is in no text.
    pub purpose: Purpose,
    /// What errors call the file that was read; none where there is no file.
    pub file: Option<Arc<str>>,
    /// The sections with fixed names.
    pub(crate) sections: BTreeMap<&'static str, Field<Section>>,
    /// `[members]`.
    pub members: Field<Vec<(MemberName, Given<Section>)>>,
    /// `[services]`. Where it is absent, there are the services `write` and `read`.
    pub services: Field<Services>,
}

static ABSENT: Field<Section> = Field { given: None, wrong: false };
static EMPTY: Section = Section { leaves: BTreeMap::new(), wrong: false };

impl Draft {
    /// A section with a fixed name.
    pub fn section(&self, name: &str) -> &Field<Section> {
        self.sections.get(name).unwrap_or(&ABSENT)
    }

    /// The keys of a section that may be absent.
    pub fn keys(&self, name: &str) -> &Section {
        self.section(name).given().map_or(&EMPTY, |given| &given.value)
    }

    /// What was written for a key of a section with a fixed name.
    pub fn get<K: Kind>(&self, key: &Key<K>) -> Field<K::Out> {
        self.keys(key.section).get(key)
    }

    /// Writes the text of a flag, and reports what is wrong with it. The section exists from then on.
    pub fn put(&mut self, key: &dyn AnyKey, value: Raw, place: Place, errors: &mut ConfigErrors) {
        self.section_mut(key.section(), place.clone()).put(key, value, place, errors);
    }

    /// A section with a fixed name, written at `place` if it is not there yet.
    pub fn section_mut(&mut self, name: &'static str, place: Place) -> &mut Section {
        self.sections.entry(name).or_default().get_or_insert(Section::default, place)
    }

    /// The section as if it had not been written.
    pub fn forget(&mut self, name: &str) {
        self.sections.remove(name);
    }

    /// The services as written, or `write` and `read` where nothing was.
    pub fn services_mut(&mut self) -> &mut Services {
        let default = Place::Default("services".to_owned());
        self.services.get_or_insert(default_services, default)
    }
}

fn default_services() -> Services {
    let names = ["write", "read"].into_iter().filter_map(|name| ServiceName::new(name).ok());
    names
        .map(|name| {
            let place = Place::Default(format!("services.{name}"));
            (name, Given { value: Section::default(), place })
        })
        .collect()
}
