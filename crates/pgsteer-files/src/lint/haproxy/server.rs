//! A server line with everything that it inherits from `default-server`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::lines::{Line, Word};
use super::patroni::is_patroni_port;
use super::role::role_of_name;
use super::values::{Address, Given, number, time_ms};
use super::words;

/// The settings of one server; the last keyword has priority.
#[derive(Clone, Debug, Default)]
pub struct Settings<'a>(BTreeMap<&'a str, Setting<'a>>);

/// One setting, and its position.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The line.
    pub line: &'a Line,
    /// Its index among the words.
    pub at: usize,
}

impl<'a> Setting<'a> {
    /// Returns the keyword after it.
    pub fn value(&self) -> Option<&'a Word> {
        self.line.words.get(self.at + 1)
    }
}

impl<'a> Settings<'a> {
    /// Adds the settings in `line` from the keyword at `at` on.
    pub fn add(&mut self, line: &'a Line, mut at: usize) {
        while let Some(word) = line.words.get(at) {
            let name = word.known().unwrap_or_default();
            match name {
                "enabled" => drop(self.0.remove("disabled")),
                _ => match name.strip_prefix("no-") {
                    Some(positive) => drop(self.0.remove(positive)),
                    None => drop(self.0.insert(name, Setting { line, at })),
                },
            }
            at += 1 + words::values_of_server_word(name);
        }
    }

    /// Returns the setting with this name.
    pub fn get(&self, name: &str) -> Option<Setting<'a>> {
        self.0.get(name).copied()
    }

    /// Returns true if the setting is present.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns the keyword after it; empty if there is none or if the environment decides.
    pub fn text(&self, name: &str) -> &'a str {
        let value = self.get(name).and_then(|setting| setting.value());
        value.and_then(Word::known).unwrap_or_default()
    }

    /// Returns true if one of its words depends on the environment, so a setting may only seem to
    /// be missing.
    pub fn is_unclear(&self) -> bool {
        self.0.contains_key("")
    }

    /// Returns a time in milliseconds.
    pub fn time(&self, name: &str) -> Given<u64> {
        self.read(name, time_ms)
    }

    /// Returns a whole number.
    pub fn number(&self, name: &str) -> Given<u64> {
        self.read(name, number)
    }

    fn read<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Given<T> {
        match self.get(name) {
            None => Given::Absent,
            Some(setting) => match Given::read(setting.value(), read) {
                Given::Absent => Given::Unknown,
                given => given,
            },
        }
    }
}

/// One `server`, or all servers of one `server-template`.
#[derive(Clone, Debug)]
pub struct Server<'a> {
    /// Its line.
    pub line: &'a Line,
    /// Its name; for a template, the prefix.
    pub name: &'a str,
    /// Its address, if known.
    pub address: Option<Address>,
    /// The number of servers, if known.
    pub count: Option<u64>,
    /// Its settings, including the inherited ones.
    pub settings: Settings<'a>,
}

impl<'a> Server<'a> {
    /// Parses a line that begins with `server` or `server-template`.
    pub fn read(line: &'a Line, inherited: &Settings<'a>) -> Server<'a> {
        let is_template = line.word(0) == "server-template";
        let address_at = if is_template { 3 } else { 2 };
        let mut settings = inherited.clone();
        settings.add(line, address_at + 1);
        // `5` or `1-5`.
        let count = match line.word(2).split_once('-') {
            _ if !is_template => Some(1),
            Some((first, last)) => number(first)
                .zip(number(last))
                .map(|(first, last)| last.saturating_sub(first).saturating_add(1)),
            None => number(line.word(2)),
        };
        let address = line.words.get(address_at).and_then(Word::known).and_then(Address::read);
        Server { line, name: line.word(1), address, count, settings }
    }

    /// Returns the port for clients.
    pub fn port(&self) -> Option<u16> {
        self.address.as_ref()?.port
    }

    /// Returns the port of the health check.
    pub fn check_port(&self) -> Option<u16> {
        match self.settings.number("port") {
            Given::Is(port) => u16::try_from(port).ok(),
            Given::Unknown => None,
            Given::Absent => match self.settings.has("addr") {
                true => None,
                false => self.port(),
            },
        }
    }

    /// Returns true if its check goes to Patroni.
    pub fn is_checked_at_patroni(&self) -> bool {
        self.check_port().is_some_and(is_patroni_port) && !self.port().is_some_and(is_patroni_port)
    }

    /// Returns true if its check goes to the port for clients.
    pub fn is_checked_where_it_serves(&self) -> bool {
        !self.settings.has("addr")
            && self.check_port().is_some_and(|port| Some(port) == self.port())
    }

    /// Returns true if it has a health check.
    pub fn is_checked(&self) -> bool {
        self.settings.has("check")
    }

    /// Returns true if it has an agent check.
    pub fn has_agent(&self) -> bool {
        self.settings.has("agent-check")
    }

    /// Returns true if DNS selects the members: by a name for the role, or by the records of a
    /// name.
    pub fn is_chosen_by_name(&self) -> bool {
        let is_template = self.line.word(0) == "server-template";
        is_template && self.settings.has("resolvers") || self.is_named_after_role()
    }

    /// Returns true if its host name contains a role, as `master.pg.service.consul` does.
    pub fn is_named_after_role(&self) -> bool {
        let host = self.address.as_ref().map_or("", |address| address.host.as_str());
        let is_name = host.contains('.') && host.parse::<IpAddr>().is_err();
        is_name && role_of_name(host).is_some()
    }

    /// Returns the host name that HAProxy has to resolve; none for an address, a socket or this
    /// machine.
    pub fn host_name(&self) -> Option<&str> {
        let host = self.address.as_ref()?.host.as_str();
        // Another rule reports digits and dots that are not an address.
        let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let is_address = is_number || host == "*" || host.parse::<IpAddr>().is_ok();
        (!is_address && host != "localhost").then_some(host)
    }

    /// Returns true if it serves only while no other server does.
    pub fn is_backup(&self) -> bool {
        self.settings.has("backup")
    }

    /// Returns true if the file disables it.
    pub fn is_disabled(&self) -> bool {
        self.settings.has("disabled")
    }
}
