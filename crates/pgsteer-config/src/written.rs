//! The configuration as written: the values of the file and the flags, with their places.
//!
//! An invalid value has already been reported when it was read. It is kept as invalid, so that no
//! later check reports it as missing. [`Draft::finish`] converts it to the settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgsteer_core::names::{MemberName, ServiceName, VipName};

use crate::error::ConfigErrors;
use crate::field::{Field, Given, Leaf, Raw};
use crate::key::{AnyKey, Key, Kind, Usual};
use crate::origin::Origin;
use crate::purpose::Purpose;

/// One section as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    leaves: BTreeMap<&'static str, Leaf>,
    wrong: bool,
}

impl Section {
    /// Returns the written value of `key`.
    pub fn get<K: Kind>(&self, key: &Key<K>) -> Field<K::Out> {
        let Some(leaf) = self.leaves.get(key.name) else {
            return if self.wrong { Field::wrong() } else { Field::default() };
        };
        match key.read(leaf, &mut |_, _| {}) {
            Some(value) => Field::new(value, key.kind.origin(leaf).clone()),
            None => Field::wrong(),
        }
    }

    /// The value of `key`, or its default.
    pub fn or_usual<K: Usual>(&self, key: &Key<K>) -> K::Out {
        self.get(key).or(key.kind.usual())
    }

    /// A section that is not a table, which has been reported: all its keys are invalid.
    pub fn wrong() -> Section {
        Section { leaves: BTreeMap::new(), wrong: true }
    }

    /// Adds a value. The caller reports its problems.
    pub fn write(&mut self, key: &'static str, leaf: Leaf) {
        self.leaves.insert(key, leaf);
    }

    /// Adds the text of a flag, and reports its problems.
    pub fn put(&mut self, key: &dyn AnyKey, value: Raw, origin: Origin, errors: &mut ConfigErrors) {
        let leaf = Leaf { key: origin.clone(), value: Given { value, origin } };
        key.check(&leaf, &mut |origin, problem| errors.push(origin, problem));
        self.write(key.name(), leaf);
    }
}

/// The services by name.
pub type Services = BTreeMap<ServiceName, Given<Section>>;

/// All written values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The command that needs the configuration. It is not part of the text.
    pub purpose: Purpose,
    /// The name of the file in errors; none without a file.
    pub file: Option<Arc<str>>,
    /// The sections with fixed names.
    pub(crate) sections: BTreeMap<&'static str, Field<Section>>,
    /// `[members]`.
    pub members: Field<Vec<(MemberName, Given<Section>)>>,
    /// `[services]`. If it is absent, the services `write` and `read` exist.
    pub services: Field<Services>,
    /// `[vip]`.
    pub vips: Field<BTreeMap<VipName, Given<Section>>>,
}

static ABSENT: Field<Section> = Field::absent();
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

    /// Returns the written value of a key in a section with a fixed name.
    pub fn get<K: Kind>(&self, key: &Key<K>) -> Field<K::Out> {
        self.keys(key.section).get(key)
    }

    /// Adds the text of a flag, and reports its problems. Adds the section if it is absent.
    pub fn put(&mut self, key: &dyn AnyKey, value: Raw, origin: Origin, errors: &mut ConfigErrors) {
        self.section_mut(key.section(), origin.clone()).put(key, value, origin, errors);
    }

    /// Returns a section with a fixed name; adds it with the place `place` if it is absent.
    pub fn section_mut(&mut self, name: &'static str, origin: Origin) -> &mut Section {
        self.sections.entry(name).or_default().get_or_insert(Section::default, origin)
    }

    /// Removes the section.
    pub fn forget(&mut self, name: &str) {
        self.sections.remove(name);
    }

    /// Returns the services as written, or adds `write` and `read` if there are none.
    pub fn services_mut(&mut self) -> &mut Services {
        let default = Origin::Default("services".to_owned());
        self.services.get_or_insert(default_services, default)
    }
}

fn default_services() -> Services {
    let names = ["write", "read"].into_iter().filter_map(|name| ServiceName::new(name).ok());
    names
        .map(|name| {
            let origin = Origin::Default(format!("services.{name}"));
            (name, Given { value: Section::default(), origin })
        })
        .collect()
}
