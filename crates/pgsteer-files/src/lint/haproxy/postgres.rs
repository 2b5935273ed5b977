//! Whether a proxy leads to PostgreSQL, by its ports and its checks.

use super::checks::{Check, checked_ports, requests};
use super::patroni::{is_patroni_path, is_patroni_port};
use super::proxy::Proxy;
use super::server::Server;

/// Usual ports of PostgreSQL.
const POSTGRES_PORTS: std::ops::RangeInclusive<u16> = 5432..=5439;
/// Usual ports of PgBouncer.
const POOLER_PORTS: [u16; 2] = [6432, 6433];

impl<'a> Proxy<'a> {
    /// Returns true if it leads to PostgreSQL, according to its ports, its pooler's, or that of
    /// Patroni beside it.
    pub fn is_postgres(&self) -> bool {
        match self.last(&["mode"]) {
            // Only PostgreSQL and its pooler use these ports, in any mode.
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

    /// Returns true if its check shows the server behind it, on any port: it requests one of
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
}

/// Returns true if the check requests one of Patroni's paths, on any port.
pub fn asks_like_patroni(proxy: &Proxy<'_>) -> bool {
    requests(proxy).iter().any(|request| is_patroni_path(glued(&request.path)))
}

/// Returns the path in `OPTIONS/replica`, where the space is missing.
fn glued(path: &str) -> &str {
    path.trim_start_matches(|c: char| c.is_ascii_uppercase())
}

/// Returns true if PostgreSQL usually listens on this port.
pub fn is_postgres_port(port: u16) -> bool {
    POSTGRES_PORTS.contains(&port)
}

/// Returns true if PgBouncer usually listens on this port.
pub fn is_pooler_port(port: u16) -> bool {
    POOLER_PORTS.contains(&port)
}
