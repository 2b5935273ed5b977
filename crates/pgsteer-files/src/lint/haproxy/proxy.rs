//! A proxy: a `frontend`, `backend` or `listen` with what it inherits and its servers.

use std::collections::BTreeMap;

use super::lines::{Line, Word};
use super::sections::{File, Kind, Section};
use super::server::{Server, Settings};
use super::values::{Address, Given, time_ms};

/// One proxy.
#[derive(Clone, Debug)]
pub struct Proxy<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its name; empty if the environment decides.
    pub name: &'a str,
    /// Its first line.
    pub head: &'a Line,
    /// Its servers, in order.
    pub servers: Vec<Server<'a>>,
    /// It is in a piece of a configuration, so another file may have what seems to be missing.
    pub is_piece: bool,
    /// `default-server` lines after a server, which does not inherit them.
    pub late_defaults: Vec<&'a Line>,
    /// Its section, and the `defaults` that it inherits from, nearest first.
    chain: Vec<&'a Section>,
    acls: BTreeMap<&'a str, Vec<&'a Line>>,
}

impl<'a> Proxy<'a> {
    /// Parses a section.
    pub fn read(file: &'a File, section: &'a Section) -> Proxy<'a> {
        let chain = file.chain(section);
        let mut settings = Settings::default();
        let inherited = chain.iter().skip(1).rev().flat_map(|section| &section.body);
        for line in inherited.filter(|line| line.word(0) == "default-server") {
            settings.add(line, 1);
        }
        let (mut servers, mut late_defaults) = (Vec::new(), Vec::new());
        for line in &section.body {
            match line.word(0) {
                "default-server" => {
                    settings.add(line, 1);
                    if !servers.is_empty() {
                        late_defaults.push(line);
                    }
                }
                "server" | "server-template" => servers.push(Server::read(line, &settings)),
                _ => {}
            }
        }
        let (kind, head) = (section.kind, &section.head);
        let acls = BTreeMap::new();
        let is_piece = file.is_piece();
        let mut proxy = Proxy {
            kind,
            name: section.name(),
            head,
            servers,
            is_piece,
            late_defaults,
            chain,
            acls,
        };
        for line in proxy.nearest("acl") {
            proxy.acls.entry(line.word(1)).or_default().push(line);
        }
        proxy
    }

    /// Its own lines.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &'a Line> {
        self.chain.first().into_iter().flat_map(|section| &section.body)
    }

    /// Its own lines that begin with this word.
    pub fn lines_of(&self, word: &'static str) -> impl DoubleEndedIterator<Item = &'a Line> {
        self.chain.first().into_iter().flat_map(move |section| section.lines_of(word))
    }

    /// Returns the last line that begins so, its own or the nearest inherited one.
    pub fn last(&self, words: &[&str]) -> Option<&'a Line> {
        let first = words.first().copied().unwrap_or_default();
        let of = |section: &&'a Section| section.lines_of(first).rfind(|line| line.begins(words));
        self.chain.iter().find_map(of)
    }

    /// Returns the lines that begin with this word, from the nearest section that has any.
    pub fn nearest(&self, word: &str) -> Vec<&'a Line> {
        let of = |section: &&'a Section| section.lines_of(word).collect::<Vec<_>>();
        self.chain.iter().map(of).find(|lines| !lines.is_empty()).unwrap_or_default()
    }

    /// The lines of the ACL of this name.
    pub fn acl(&self, name: &str) -> &[&'a Line] {
        self.acls.get(name).map_or(&[], Vec::as_slice)
    }

    /// `tcp` or `http`; none if the environment or another file decides.
    pub fn mode(&self) -> Option<&'a str> {
        let default = (!self.is_piece).then_some("tcp");
        self.last(&["mode"]).map_or(default, |line| line.words.get(1)?.known())
    }

    /// Returns true if the file disables it.
    pub fn is_disabled(&self) -> bool {
        let (off, on) = (self.last(&["disabled"]), self.last(&["enabled"]));
        off.is_some_and(|off| on.is_none_or(|on| on.number < off.number))
    }

    /// Returns the line that enables this option, unless another line disables it again.
    pub fn option(&self, name: &str) -> Option<&'a Line> {
        let decides = |line: &&Line| {
            let at = usize::from(line.word(0) != "option");
            line.word(at) == "option" && line.word(at + 1) == name
        };
        let of = |section: &&'a Section| {
            let lines = ["option", "no", "default"].iter().flat_map(|word| section.lines_of(word));
            lines.filter(decides).max_by_key(|line| line.number)
        };
        self.chain.iter().find_map(of).filter(|line| line.word(0) == "option")
    }

    /// Returns a timeout in milliseconds, and its line.
    pub fn timeout(&self, name: &str) -> (Given<u64>, Option<&'a Line>) {
        let line = self.last(&["timeout", name]);
        let given =
            line.map_or(Given::Absent, |line| match Given::read(line.words.get(2), time_ms) {
                Given::Absent => Given::Unknown,
                given => given,
            });
        (given, line)
    }

    /// Returns its `bind` lines with each of their addresses, if the address is known.
    pub fn binds(&self) -> impl Iterator<Item = (&'a Line, Option<Address>)> {
        self.lines_of("bind").flat_map(|line| {
            let addresses = line.words.get(1).and_then(|word| word.known()).unwrap_or("@");
            addresses.split(',').map(move |address| (line, Address::read(address)))
        })
    }

    /// Returns the enabled servers that the file defines completely.
    pub fn members(&self) -> impl Iterator<Item = &Server<'a>> {
        let is_clear = |server: &&Server<'a>| !server.settings.is_unclear();
        self.servers.iter().filter(|server| !server.is_disabled()).filter(is_clear)
    }

    /// Returns the number of enabled servers, with or without backups. A template with an unknown
    /// number counts as one.
    pub fn count(&self, with_backups: bool) -> u64 {
        let servers = self.servers.iter().filter(|server| !server.is_disabled());
        let counted = servers.filter(|server| with_backups || !server.is_backup());
        counted.fold(0, |sum, server| sum.saturating_add(server.count.unwrap_or(1)))
    }

    /// Returns the maximum of `nbsrv`: the active servers, or else the backups, of which one serves
    /// unless all do. None if it is unknown, as for servers that are added at runtime.
    pub fn most_up(&self) -> Option<u64> {
        let sum = |is_backup: bool| {
            let counted = self.servers.iter().filter(|server| server.is_backup() == is_backup);
            counted.into_iter().try_fold(0_u64, |sum, it| Some(sum.saturating_add(it.count?)))
        };
        let is_clear =
            |server: &Server<'_>| !server.settings.is_unclear() && !server.line.is_conditional;
        if self.servers.is_empty() || !self.servers.iter().all(is_clear) {
            return None;
        }
        let (active, backups) = (sum(false)?, sum(true)?);
        let all_serve = self.is_piece || self.option("allbackups").is_some();
        Some(active.max(if all_serve { backups } else { backups.min(1) }))
    }

    /// Returns true if clients connect to it directly, and it does not lead to another proxy.
    pub fn is_door(&self) -> bool {
        self.kind == Kind::Listen && self.binds().next().is_some()
    }

    /// Returns the lines that lead its clients to a backend.
    pub fn ways(&self) -> impl Iterator<Item = &'a Line> {
        self.lines_of("use_backend").chain(self.last(&["default_backend"]))
    }

    /// Returns the rules by which it refuses clients, each with or without a condition.
    pub fn refusals(&self) -> impl Iterator<Item = &'a Line> {
        let is_refusal =
            |word: &Word| ["reject", "silent-drop", "deny"].iter().any(|it| word.is(it));
        let rules = self.nearest("tcp-request").into_iter().chain(self.nearest("http-request"));
        rules.filter(move |line| line.words.iter().any(is_refusal))
    }

    /// Returns the line of the `defaults` that it inherits from.
    pub fn parent(&self) -> Option<usize> {
        self.chain.get(1).map(|section| section.head.number)
    }

    /// Returns its name for a message.
    pub fn title(&self) -> String {
        format!("{} `{}`", self.head.word(0), self.shown_name())
    }

    /// Its name as written.
    pub fn shown_name(&self) -> &'a str {
        self.head.words.get(1).map_or("", |word| word.shown())
    }
}
