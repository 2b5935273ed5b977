//! Identity: what distinguishes one PostgreSQL cluster from another.
//!
//! The database system identifier distinguishes data, the scope distinguishes clusters that
//! were cloned from each other (a standby cluster has its source's identifier). A Citus group has
//! an identifier of its own.

use std::fmt;

use crate::names::MemberName;
use crate::text::clean;

/// The identity of a cluster, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Patroni's scope.
    pub scope: Option<String>,
    /// The Citus group. No released Patroni reports it by its REST API.
    pub group: Option<u32>,
    /// The database system identifier.
    pub system_identifier: Option<String>,
}

/// What a Patroni reports of itself at `GET /patroni`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its member name, which Patroni 4 reports.
    pub name: Option<String>,
    /// The cluster that it belongs to.
    pub identity: Identity,
}

/// One part of an identity that differs from the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Which part.
    pub part: Part,
    /// The value that was found.
    pub found: String,
    /// The value that was expected.
    pub expected: String,
}

/// A part of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The scope.
    Scope,
    /// The Citus group.
    Group,
    /// The database system identifier.
    SystemIdentifier,
}

impl Identity {
    /// Returns the identity of a scope alone.
    pub fn of_scope(scope: &str) -> Identity {
        Identity { scope: Some(scope.to_owned()), ..Identity::default() }
    }

    /// Returns true if no part is known.
    pub fn is_unknown(&self) -> bool {
        *self == Identity::default()
    }

    /// Returns the first part of `found` that differs from this identity; unknown parts never
    /// differ. None if no part differs.
    pub fn contradiction(&self, found: &Identity) -> Option<Contradiction> {
        // In most cases nothing differs, and nothing is copied.
        if differs(&self.scope, &found.scope) {
            return contradiction(Part::Scope, &found.scope, &self.scope);
        }
        if differs(&self.group, &found.group) {
            return contradiction(Part::Group, &found.group, &self.group);
        }
        if differs(&self.system_identifier, &found.system_identifier) {
            let (found, expected) = (&found.system_identifier, &self.system_identifier);
            return contradiction(Part::SystemIdentifier, found, expected);
        }
        None
    }

    /// Returns true if both identifiers are known and equal.
    pub fn has_system_of(&self, other: &Identity) -> bool {
        self.system_identifier.is_some() && self.system_identifier == other.system_identifier
    }

    /// Returns true if scope and group do not differ.
    pub fn has_scope_of(&self, other: &Identity) -> bool {
        !differs(&self.scope, &other.scope) && !differs(&self.group, &other.group)
    }

    /// Reads the scope as Patroni's keys in etcd have it: `demo`, or `demo/0` for a Citus group.
    pub fn of_scope_in_etcd(text: &str) -> Identity {
        let grouped = text.rsplit_once('/');
        let grouped = grouped.and_then(|(scope, group)| Some((scope, group.parse().ok()?)));
        match grouped {
            Some((scope, group)) => Identity { group: Some(group), ..Identity::of_scope(scope) },
            None => Identity::of_scope(text),
        }
    }

    /// The scope as Patroni's keys in etcd have it: `demo`, or `demo/0` for a Citus group.
    pub fn scope_in_etcd(&self) -> Option<String> {
        let scope = self.scope.as_deref()?;
        Some(match self.group {
            Some(group) => format!("{scope}/{group}"),
            None => scope.to_owned(),
        })
    }

    /// Returns this identity without the parts that `other` has.
    pub fn without_parts_of(&self, other: &Identity) -> Identity {
        let Identity { scope, group, system_identifier } = self.clone();
        Identity {
            scope: scope.filter(|_| other.scope.is_none()),
            group: group.filter(|_| other.group.is_none()),
            system_identifier: system_identifier.filter(|_| other.system_identifier.is_none()),
        }
    }

    /// Returns this identity, with the parts of `other` where this one has none.
    pub fn or(&self, other: &Identity) -> Identity {
        Identity {
            scope: self.scope.clone().or_else(|| other.scope.clone()),
            group: self.group.or(other.group),
            system_identifier: self
                .system_identifier
                .clone()
                .or_else(|| other.system_identifier.clone()),
        }
    }
}

fn differs<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

fn contradiction<T: ToString>(
    part: Part,
    found: &Option<T>,
    expected: &Option<T>,
) -> Option<Contradiction> {
    let (found, expected) = (found.as_ref()?.to_string(), expected.as_ref()?.to_string());
    Some(Contradiction { part, found, expected })
}

impl About {
    /// Returns true if this Patroni reports another member's name.
    pub fn is_other_than(&self, member: &MemberName) -> bool {
        // A reported name was cleaned and cut, so the own name is cleaned before the comparison.
        self.name.as_deref().is_some_and(|name| name != clean(member.as_str()))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Scope => "scope",
            Part::Group => "group",
            Part::SystemIdentifier => "system identifier",
        })
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Contradiction { part, found, expected } = self;
        write!(f, "{part} {found}, expected {expected}")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.scope.as_ref().map(|scope| format!("scope {scope}")),
            self.group.map(|group| format!("group {group}")),
            self.system_identifier.as_ref().map(|system| format!("system identifier {system}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => f.write_str("unknown"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(scope: Option<&str>, system: Option<&str>) -> Identity {
        Identity {
            scope: scope.map(str::to_owned),
            group: None,
            system_identifier: system.map(str::to_owned),
        }
    }

    #[test]
    fn only_parts_that_both_know_can_differ() {
        let own = identity(Some("demo"), Some("7001"));
        for same in [identity(None, None), identity(Some("demo"), None), own.clone()] {
            assert_eq!(own.contradiction(&same), None);
            assert_eq!(same.contradiction(&own), None);
        }
        let differs = |found| own.contradiction(&found).unwrap().to_string();
        assert_eq!(differs(identity(Some("x"), Some("1"))), "scope x, expected demo");
        assert_eq!(differs(identity(None, Some("1"))), "system identifier 1, expected 7001");
        let group = |group| Identity { group: Some(group), ..own.clone() };
        assert_eq!(group(0).contradiction(&group(1)).unwrap().part, Part::Group);
    }

    #[test]
    fn the_scope_in_etcd_has_the_group_of_a_citus_cluster() {
        for (text, scope, group) in
            [("demo", "demo", None), ("demo/0", "demo", Some(0)), ("a/b", "a/b", None)]
        {
            let identity = Identity::of_scope_in_etcd(text);
            assert_eq!((identity.scope.as_deref(), identity.group), (Some(scope), group));
            assert_eq!(identity.scope_in_etcd().as_deref(), Some(text));
        }
        assert_eq!(Identity::default().scope_in_etcd(), None);
    }

    #[test]
    fn two_unknown_identifiers_are_not_the_same() {
        assert!(!identity(None, None).has_system_of(&identity(None, None)));
        assert!(identity(None, Some("7")).has_system_of(&identity(Some("x"), Some("7"))));
    }
}
