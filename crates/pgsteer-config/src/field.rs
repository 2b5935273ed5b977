//! A value as written, with its place: the value of one key, before and after it was parsed.

use crate::origin::Origin;

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub origin: Origin,
}

/// The written value of one key: none, a valid value, or an invalid one that has been reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<T> {
    given: Option<Given<T>>,
    wrong: bool,
}

impl<T> Default for Field<T> {
    fn default() -> Field<T> {
        Field::absent()
    }
}

impl<T> Field<T> {
    /// Nothing was written.
    pub const fn absent() -> Field<T> {
        Field { given: None, wrong: false }
    }

    /// A value written at `place`.
    pub fn new(value: T, origin: Origin) -> Field<T> {
        Field { given: Some(Given { value, origin }), wrong: false }
    }

    /// An invalid value, which has been reported.
    pub fn wrong() -> Field<T> {
        Field { given: None, wrong: true }
    }

    /// Returns true if nothing was written.
    pub fn is_absent(&self) -> bool {
        self.given.is_none() && !self.wrong
    }

    /// Returns true if an invalid value was written and reported.
    pub fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// The value with its place, if it is valid.
    pub fn given(&self) -> Option<&Given<T>> {
        self.given.as_ref()
    }

    /// The value, if it is valid.
    pub fn value(self) -> Option<T> {
        self.given.map(|given| given.value)
    }

    /// The value, or `default` if there is no valid one.
    pub fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }

    /// Returns the value to change; adds `empty` with the place `place` if there is none yet.
    pub fn get_or_insert(&mut self, empty: impl FnOnce() -> T, origin: Origin) -> &mut T {
        let given = self.given.get_or_insert_with(|| Given { value: empty(), origin });
        &mut given.value
    }
}

/// A value as written, before its key has parsed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// The text of a flag or an environment variable, which may have any type.
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
    /// The place of the key.
    pub key: Origin,
    /// The value.
    pub value: Given<Raw>,
}
