//! The plan: which members the sources ask, at which addresses, and how often.
//!
//! It is the only thing that the core returns to the sources. The sources follow it and decide
//! nothing about urgency themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{Endpoint, MemberName};

/// Which members and URLs to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The members. A member that is missing here is not asked any more.
    pub members: BTreeMap<MemberName, Ask>,
    /// The URLs that are asked for the member list, and when.
    pub listers: Vec<Lister>,
    /// Patroni's scope as the members report it; it is part of the names of the keys in etcd.
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
    /// If no URL before it returned a list in this round.
    InTurn,
    /// After all others: it answered for another cluster.
    Last,
}

/// How to ask one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Where its PostgreSQL listens.
    pub postgres: Endpoint,
    /// The addresses to which its host was last resolved; empty until the first answer.
    pub addresses: Vec<IpAddr>,
    /// Another endpoint under which the newest list names it: its addresses are reported once.
    pub new_host: Option<Endpoint>,
    /// The base of its REST API, as `http://10.0.0.11:8008`; none without Patroni.
    pub patroni_url: Option<Arc<str>>,
    /// The ports of poolers on its host that are asked now.
    pub poolers: BTreeSet<u16>,
    /// Its server is asked by SQL. False if it is asked under another name, or its port is unknown.
    pub has_tether: bool,
    /// The time between its questions.
    pub pace: Pace,
}

/// The time from one question to the next. When it becomes shorter, the source asks at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// For the tether.
    pub tether: Duration,
    /// For Patroni.
    pub patroni: Duration,
    /// For each pooler.
    pub pooler: Duration,
}
