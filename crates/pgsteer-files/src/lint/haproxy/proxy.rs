//! A proxy: a `frontend`, `backend` or `listen` with what it inherits and its servers.

use std::collections::BTreeMap;

use super::checks::{Check, checked_ports};
use super::lines::{Line, Word};
use super::patroni::is_patroni_port;
use super::roles::asks_like_patroni;
use super::sections::{File, Kind, Section};
use super::server::{Server, Settings};
use super::values::{Address, Given, number, time_ms};

/// Usual ports of PostgreSQL.
const POSTGRES_PORTS: std::ops::RangeInclusive<u16> = 5432..=5439;
/// Usual ports of PgBouncer.
const POOLER_PORTS: [u16; 2] = [6432, 6433];

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
    fn read(file: &'a File, section: &'a Section) -> Proxy<'a> {
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

    /// Returns true if it leads to PostgreSQL, according to its ports, its pooler's, or that of
    /// Patroni beside it.
    pub fn is_postgres(&self) -> bool {
        match self.last(&["mode"]) {
            // In whatever mode, only PostgreSQL and its pooler use these ports.
            None if self.is_piece => {
                self.servers.iter().any(|server| self.is_surely_postgres(server))
            }
            _ => self.mode() == Some("tcp") && self.leads_to_postgres(),
        }
    }

    /// Returns true if it has the port of PostgreSQL or PgBouncer, and no setting that only HTTP
    /// has.
    pub fn is_surely_postgres(&self, server: &Server<'a>) -> bool {
        let has_cookie = self.last(&["cookie"]).is_some() || server.settings.has("cookie");
        let is_http = self.option("httpchk").is_some() && server.is_checked_where_it_serves();
        let is_beside_patroni = server.is_checked_at_patroni() && asks_like_patroni(self);
        (matches!(server.port(), Some(5432 | 6432)) || is_beside_patroni) && !has_cookie && !is_http
    }

    /// The same, in any mode.
    pub fn leads_to_postgres(&self) -> bool {
        let is_one = |server: &Server<'a>| {
            server.port().is_some_and(|port| is_postgres_port(port) || is_pooler_port(port))
                || server.is_checked_at_patroni()
        };
        self.servers.iter().any(is_one) || self.is_checked_like_postgres()
    }

    /// Returns true if its check shows the server behind it, whatever the ports: it requests one of
    /// Patroni's paths on another port than the service's, or it begins a login.
    fn is_checked_like_postgres(&self) -> bool {
        let is_beside = |server: &Server<'a>| {
            let is_other = |port: &u16| Some(*port) != server.port();
            server.is_checked()
                && !server.port().is_some_and(is_patroni_port)
                && (server.settings.has("addr") || checked_ports(self, server).iter().any(is_other))
        };
        match Check::of(self) {
            Check::Pgsql => self.servers.iter().any(Server::is_checked_where_it_serves),
            Check::Http { .. } | Check::Tcp(_) => {
                asks_like_patroni(self) && self.servers.iter().any(is_beside)
            }
            _ => false,
        }
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

/// Returns true if PostgreSQL usually listens on this port.
pub fn is_postgres_port(port: u16) -> bool {
    POSTGRES_PORTS.contains(&port)
}

/// Returns true if PgBouncer usually listens on this port.
pub fn is_pooler_port(port: u16) -> bool {
    POOLER_PORTS.contains(&port)
}

/// A file with its proxies.
#[derive(Clone, Debug)]
pub struct Model<'a> {
    /// The sections of the text.
    pub file: &'a File,
    /// The proxies in order.
    pub proxies: Vec<Proxy<'a>>,
    /// The jitter of checks (`spread-checks`).
    pub spread_percent: Given<u64>,
    by_name: BTreeMap<&'a str, usize>,
    routes: BTreeMap<&'a str, Vec<(usize, &'a Line)>>,
    has_dynamic_routes: bool,
}

impl<'a> Model<'a> {
    /// Builds the model from the sections.
    pub fn new(file: &'a File) -> Model<'a> {
        let sections = file.sections.iter().filter(|section| section.kind.is_proxy());
        let proxies: Vec<Proxy<'a>> = sections.map(|section| Proxy::read(file, section)).collect();
        let mut by_name = BTreeMap::new();
        let mut routes: BTreeMap<&'a str, Vec<(usize, &'a Line)>> = BTreeMap::new();
        for (at, proxy) in proxies.iter().enumerate() {
            if proxy.kind != Kind::Frontend && !proxy.name.is_empty() {
                by_name.entry(proxy.name).or_insert(at);
            }
            for line in proxy.ways().filter(|_| proxy.kind != Kind::Backend) {
                routes.entry(line.word(1)).or_default().push((at, line));
            }
        }
        // A route that is computed for each client may lead to any backend.
        let is_dynamic = |name: &&str| name.is_empty() || name.contains('%');
        let has_dynamic_routes = routes.keys().any(is_dynamic);
        let spread = file.global("spread-checks");
        let spread_percent =
            spread.map_or(Given::Absent, |line| Given::read(line.words.get(1), number));
        Model { file, proxies, spread_percent, by_name, routes, has_dynamic_routes }
    }

    /// Returns the `backend` or `listen` with this name.
    pub fn backend(&self, name: &str) -> Option<&Proxy<'a>> {
        self.by_name.get(name).and_then(|at| self.proxies.get(*at))
    }

    /// Returns the routes to this backend, each with the proxy that it starts from.
    pub fn routes_to(&self, name: &str) -> impl Iterator<Item = (&Proxy<'a>, &'a Line)> {
        let routes = self.routes.get(name).into_iter().flatten();
        routes.filter_map(|(at, line)| Some((self.proxies.get(*at)?, *line)))
    }

    /// Returns the proxies that lead to PostgreSQL.
    pub fn postgres(&self) -> impl Iterator<Item = &Proxy<'a>> {
        self.proxies.iter().filter(|proxy| proxy.is_postgres())
    }

    /// Returns the proxies that `proxy` leads to.
    pub fn led_to(&self, proxy: &Proxy<'a>) -> Vec<&Proxy<'a>> {
        proxy.ways().filter_map(|line| self.backend(line.word(1))).collect()
    }

    /// Returns true if its clients are PostgreSQL's.
    pub fn is_way_to_postgres(&self, proxy: &Proxy<'a>) -> bool {
        let is_led = || self.led_to(proxy).into_iter().any(Proxy::is_postgres);
        proxy.is_postgres()
            || proxy.mode() != Some("http") && proxy.kind != Kind::Backend && is_led()
    }

    /// Returns true if clients may reach it. A backend without a route is only there to be counted.
    pub fn has_clients(&self, proxy: &Proxy<'a>) -> bool {
        !self.file.has_all_sections()
            || proxy.is_door()
            || self.has_dynamic_routes
            || self.routes.contains_key(proxy.name)
    }
}
