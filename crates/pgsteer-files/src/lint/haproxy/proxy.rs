//! A proxy: a `frontend`, `backend` or `listen` with what it inherits and its servers.

use std::collections::BTreeMap;

use super::checks::{Check, checked_ports};
use super::lines::{Line, Word};
use super::patroni::is_patroni_port;
use super::roles::asks_like_patroni;
use super::sections::{File, Kind, Section};
use super::server::{Server, Settings};
use super::values::{Address, Given, number, time_ms};

/// Ports that stand for PostgreSQL itself.
const POSTGRES_PORTS: std::ops::RangeInclusive<u16> = 5432..=5439;
/// Ports that stand for PgBouncer.
const POOLER_PORTS: [u16; 2] = [6432, 6433];

/// One proxy.
#[derive(Clone, Debug)]
pub struct Proxy<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its name; empty if the environment decides.
    pub name: &'a str,
    /// Its first line.
    pub head: &'a Line,
    /// Its servers, in their order.
    pub servers: Vec<Server<'a>>,
    /// It is in a piece of a configuration, so that what seems to be missing may be in another file.
    pub is_piece: bool,
    /// `default-server` lines that stand below a server, which does not get them.
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

    /// The last line that begins so, its own or the nearest that it inherits.
    pub fn last(&self, words: &[&str]) -> Option<&'a Line> {
        let first = words.first().copied().unwrap_or_default();
        let of = |section: &&'a Section| section.lines_of(first).rfind(|line| line.begins(words));
        self.chain.iter().find_map(of)
    }

    /// The lines that begin with this word, of the nearest section that has any.
    pub fn nearest(&self, word: &str) -> Vec<&'a Line> {
        let of = |section: &&'a Section| section.lines_of(word).collect::<Vec<_>>();
        self.chain.iter().map(of).find(|lines| !lines.is_empty()).unwrap_or_default()
    }

    /// The lines of the ACL of this name.
    pub fn acl(&self, name: &str) -> &[&'a Line] {
        self.acls.get(name).map_or(&[], Vec::as_slice)
    }

    /// `tcp` or `http`; none if the environment decides, or another file.
    pub fn mode(&self) -> Option<&'a str> {
        let default = (!self.is_piece).then_some("tcp");
        self.last(&["mode"]).map_or(default, |line| line.words.get(1)?.known())
    }

    /// It is switched off in the file.
    pub fn is_disabled(&self) -> bool {
        let (off, on) = (self.last(&["disabled"]), self.last(&["enabled"]));
        off.is_some_and(|off| on.is_none_or(|on| on.number < off.number))
    }

    /// The line that switches this option on, unless another one switches it off again.
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

    /// A timeout in milliseconds, and where it is written.
    pub fn timeout(&self, name: &str) -> (Given<u64>, Option<&'a Line>) {
        let line = self.last(&["timeout", name]);
        let given =
            line.map_or(Given::Absent, |line| match Given::read(line.words.get(2), time_ms) {
                Given::Absent => Given::Unknown,
                given => given,
            });
        (given, line)
    }

    /// Its `bind` lines with each address that they name, if it can be told.
    pub fn binds(&self) -> impl Iterator<Item = (&'a Line, Option<Address>)> {
        self.lines_of("bind").flat_map(|line| {
            let addresses = line.words.get(1).and_then(|word| word.known()).unwrap_or("@");
            addresses.split(',').map(move |address| (line, Address::read(address)))
        })
    }

    /// Servers that take part, and of which the file tells all.
    pub fn members(&self) -> impl Iterator<Item = &Server<'a>> {
        let is_clear = |server: &&Server<'a>| !server.settings.is_unclear();
        self.servers.iter().filter(|server| !server.is_disabled()).filter(is_clear)
    }

    /// How many take part: all, or those that are no backups. A template counts as one if its number
    /// cannot be told.
    pub fn count(&self, with_backups: bool) -> u64 {
        let servers = self.servers.iter().filter(|server| !server.is_disabled());
        let counted = servers.filter(|server| with_backups || !server.is_backup());
        counted.fold(0, |sum, server| sum.saturating_add(server.count.unwrap_or(1)))
    }

    /// The most that `nbsrv` can count: the active ones, or else the backups, of which one serves
    /// unless all do. None if it cannot be told, as of servers that are added while HAProxy runs.
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

    /// It leads to PostgreSQL: by its ports, its pooler's, or that of Patroni beside it.
    pub fn is_postgres(&self) -> bool {
        match self.last(&["mode"]) {
            // Whatever mode another file says, nothing else is at these ports.
            None if self.is_piece => {
                self.servers.iter().any(|server| self.is_surely_postgres(server))
            }
            _ => self.mode() == Some("tcp") && self.leads_to_postgres(),
        }
    }

    /// It has the port of PostgreSQL or PgBouncer, and nothing that only HTTP has.
    pub fn is_surely_postgres(&self, server: &Server<'a>) -> bool {
        let has_cookie = self.last(&["cookie"]).is_some() || server.settings.has("cookie");
        let is_http = self.option("httpchk").is_some() && server.is_checked_where_it_serves();
        let is_beside_patroni = server.is_checked_at_patroni() && asks_like_patroni(self);
        (matches!(server.port(), Some(5432 | 6432)) || is_beside_patroni) && !has_cookie && !is_http
    }

    /// The same, in whatever mode.
    pub fn leads_to_postgres(&self) -> bool {
        let is_one = |server: &Server<'a>| {
            server.port().is_some_and(|port| is_postgres_port(port) || is_pooler_port(port))
                || server.is_checked_at_patroni()
        };
        self.servers.iter().any(is_one) || self.is_checked_like_postgres()
    }

    /// Its check shows what is behind it, whatever the ports are: it asks for one of Patroni's paths
    /// beside the port of the service, or it begins a login.
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

    /// Clients come to it by themselves, and are led no further.
    pub fn is_door(&self) -> bool {
        self.kind == Kind::Listen && self.binds().next().is_some()
    }

    /// The lines that lead its clients to a backend.
    pub fn ways(&self) -> impl Iterator<Item = &'a Line> {
        self.lines_of("use_backend").chain(self.last(&["default_backend"]))
    }

    /// The rules by which it turns clients away, each perhaps on a condition.
    pub fn refusals(&self) -> impl Iterator<Item = &'a Line> {
        let is_refusal =
            |word: &Word| ["reject", "silent-drop", "deny"].iter().any(|it| word.is(it));
        let rules = self.nearest("tcp-request").into_iter().chain(self.nearest("http-request"));
        rules.filter(move |line| line.words.iter().any(is_refusal))
    }

    /// The line of the `defaults` that it inherits from.
    pub fn parent(&self) -> Option<usize> {
        self.chain.get(1).map(|section| section.head.number)
    }

    /// How it is called in a message.
    pub fn title(&self) -> String {
        format!("{} `{}`", self.head.word(0), self.shown_name())
    }

    /// Its name as written.
    pub fn shown_name(&self) -> &'a str {
        self.head.words.get(1).map_or("", |word| word.shown())
    }
}

/// PostgreSQL listens there, by custom.
pub fn is_postgres_port(port: u16) -> bool {
    POSTGRES_PORTS.contains(&port)
}

/// PgBouncer listens there, by custom.
pub fn is_pooler_port(port: u16) -> bool {
    POOLER_PORTS.contains(&port)
}

/// A file with its proxies.
#[derive(Clone, Debug)]
pub struct Model<'a> {
    /// The text in sections.
    pub file: &'a File,
    /// In their order.
    pub proxies: Vec<Proxy<'a>>,
    /// By how much checks may come earlier or later (`spread-checks`).
    pub spread_percent: Given<u64>,
    by_name: BTreeMap<&'a str, usize>,
    routes: BTreeMap<&'a str, Vec<(usize, &'a Line)>>,
    has_dynamic_routes: bool,
}

impl<'a> Model<'a> {
    /// Reads the sections.
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
        // A way that is made when a client comes may lead anywhere.
        let is_dynamic = |name: &&str| name.is_empty() || name.contains('%');
        let has_dynamic_routes = routes.keys().any(is_dynamic);
        let spread = file.global("spread-checks");
        let spread_percent =
            spread.map_or(Given::Absent, |line| Given::read(line.words.get(1), number));
        Model { file, proxies, spread_percent, by_name, routes, has_dynamic_routes }
    }

    /// The `backend` or `listen` of this name.
    pub fn backend(&self, name: &str) -> Option<&Proxy<'a>> {
        self.by_name.get(name).and_then(|at| self.proxies.get(*at))
    }

    /// The ways that lead to this backend, each with the proxy that it starts from.
    pub fn routes_to(&self, name: &str) -> impl Iterator<Item = (&Proxy<'a>, &'a Line)> {
        let routes = self.routes.get(name).into_iter().flatten();
        routes.filter_map(|(at, line)| Some((self.proxies.get(*at)?, *line)))
    }

    /// Those that lead to PostgreSQL.
    pub fn postgres(&self) -> impl Iterator<Item = &Proxy<'a>> {
        self.proxies.iter().filter(|proxy| proxy.is_postgres())
    }

    /// The proxies that `proxy` leads to.
    pub fn led_to(&self, proxy: &Proxy<'a>) -> Vec<&Proxy<'a>> {
        proxy.ways().filter_map(|line| self.backend(line.word(1))).collect()
    }

    /// Its clients are PostgreSQL's.
    pub fn is_way_to_postgres(&self, proxy: &Proxy<'a>) -> bool {
        let is_led = || self.led_to(proxy).into_iter().any(Proxy::is_postgres);
        proxy.is_postgres()
            || proxy.mode() != Some("http") && proxy.kind != Kind::Backend && is_led()
    }

    /// Clients may get to it. A backend that nobody is led to is only there to be counted.
    pub fn has_clients(&self, proxy: &Proxy<'a>) -> bool {
        !self.file.has_all_sections()
            || proxy.is_door()
            || self.has_dynamic_routes
            || self.routes.contains_key(proxy.name)
    }
}
