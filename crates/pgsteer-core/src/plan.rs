//! The plan: whom the sources ask, where, and how often.
//!
//! It is the one word that goes back from the core to the sources. They obey it and hold no
//! opinion of their own on what is urgent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{Endpoint, MemberName};

/// What to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The members. One that is not in it is not asked any more.
    pub members: BTreeMap<MemberName, Ask>,
    /// The URLs that are asked for the member list, each with when.
    pub listers: Vec<Lister>,
    /// Patroni's scope as the members tell it, by which its keys in etcd are named.
    pub scope: Option<Arc<str>>,
}

/// A URL that is asked for the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lister {
    /// The base URL of a Patroni.
    pub url: Arc<str>,
    /// When it is asked.
    pub when: When,
}

/// When a URL is asked for the member list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// In each round: no list has been accepted yet, or this URL never answered.
    Always,
    /// If none before it returned a list in this round.
    InTurn,
    /// As the last ones: it answered for another cluster.
    Last,
}

/// How to ask one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Where its PostgreSQL listens.
    pub postgres: Endpoint,
    /// The addresses its host was last resolved to; empty until the first answer.
    pub addresses: Vec<IpAddr>,
    /// The base of its REST API, as `http://10.0.0.11:8008`; none without Patroni.
    pub patroni_url: Option<Arc<str>>,
    /// The ports on its host on which poolers are asked now.
    pub poolers: BTreeSet<u16>,
    /// Its server is asked by SQL. False if it is asked under another name, or its port is unknown.
    pub has_tether: bool,
    /// How often.
    pub pace: Pace,
}

/// The time from one question to the next. A change to a shorter one means: ask now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// For the tether.
    pub tether: Duration,
    /// For Patroni.
    pub patroni: Duration,
    /// For each pooler.
    pub pooler: Duration,
}
