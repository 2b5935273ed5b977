//! A file with its proxies, and the routes between them.

use std::collections::BTreeMap;

use super::lines::Line;
use super::proxy::Proxy;
use super::sections::{File, Kind};
use super::values::{Given, number};

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
