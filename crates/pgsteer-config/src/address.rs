//! Addresses as users write them: of a listener, of a member, of Patroni, of etcd.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pgsteer_core::names::{Endpoint, POSTGRES_PORT};
use pgsteer_core::settings::HaproxySocket;

use crate::api::Api;
use crate::plain;
use crate::problem::{Problem, Shown};

/// The maximum length of a host name in DNS, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Parses a listen address: `0.0.0.0:5000`, `[::]:5000`, or `5000`, `:5000` and `*:5000` for all
/// IPv4 addresses.
///
/// # Errors
/// A host name (its address may change while the listener runs), or an invalid port.
pub fn listen(text: &str) -> Result<SocketAddr, Problem> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return port(&addr.port().to_string()).map(|_| addr);
    }
    let bare = text.strip_prefix('*').unwrap_or(text);
    let bare = bare.strip_prefix(':').unwrap_or(bare);
    if !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit()) {
        return port(bare).map(|port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    }
    match text.rsplit_once(':') {
        Some((host, digits)) if host.parse::<Ipv6Addr>().is_ok() && port(digits).is_ok() => {
            Err(Problem::Brackets { found: Shown::of(text), meant: format!("[{host}]:{digits}") })
        }
        Some((host, digits)) if is_address(host) => Err(Problem::Port(Shown::of(digits))),
        _ => Err(Problem::Listen(Shown::of(text))),
    }
}

/// Parses the listen address of the status pages, or `none` to disable them.
///
/// # Errors
/// Same as [`listen`].
pub fn listen_or_none(text: &str) -> Result<Option<SocketAddr>, Problem> {
    match text {
        "none" | "off" | "false" => Ok(None),
        _ => listen(text).map(Some),
    }
}

/// Parses the address of a member's PostgreSQL: `10.0.0.11:5432`, `pg1.example`.
///
/// # Errors
/// No host name or address, an invalid port, or an address that means all addresses.
pub fn postgres(text: &str) -> Result<Endpoint, Problem> {
    endpoint(text, POSTGRES_PORT)
}

/// Parses a socket of HAProxy's Runtime API: the path of a Unix socket, or HOST:PORT.
///
/// # Errors
/// A text that is neither.
pub fn haproxy_socket(text: &str) -> Result<HaproxySocket, Problem> {
    let path = text.strip_prefix("unix@").unwrap_or(text);
    if path.starts_with('/') {
        return plain::path(path).map(HaproxySocket::Unix);
    }
    let endpoint = Endpoint::parse(text.strip_prefix("ipv4@").unwrap_or(text), None);
    endpoint.map(HaproxySocket::Tcp).map_err(|_| Problem::HaproxySocket(Shown::of(text)))
}

/// Parses the base address of Patroni's REST API and returns it with its port: `http://pg1` becomes
/// `http://pg1:8008`.
///
/// # Errors
/// Another scheme, a path, credentials (which are not repeated), or no host.
pub fn patroni_url(text: &str) -> Result<String, Problem> {
    base_url(text, Api::Patroni)
}

/// Parses the base address of a pgsteer's pages and returns it with its port: `http://door2` becomes
/// `http://door2:7000`.
///
/// # Errors
/// Same as [`patroni_url`].
pub fn pgsteer_url(text: &str) -> Result<String, Problem> {
    base_url(text, Api::Pgsteer)
}

/// Parses the base address of an etcd and returns it with its port: `http://pg1` becomes
/// `http://pg1:2379`.
///
/// # Errors
/// Same as [`patroni_url`].
pub fn etcd_url(text: &str) -> Result<String, Problem> {
    base_url(text, Api::Etcd)
}

impl Api {
    /// Parses a base address of this kind, and returns it with its port.
    ///
    /// # Errors
    /// Same as [`patroni_url`].
    pub fn url(self, text: &str) -> Result<String, Problem> {
        base_url(text, self)
    }
}

fn base_url(text: &str, api: Api) -> Result<String, Problem> {
    if text.contains('@') {
        return Err(Problem::UrlCredentials(api));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(no_scheme(text, text, api));
    };
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(no_scheme(text, rest, api));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if let Some(meant) = brackets_missing(host, api.port(), Url::Yes) {
        let meant = format!("{scheme}://{meant}");
        return Err(Problem::Brackets { found: Shown::of(text), meant });
    }
    let endpoint = endpoint(host, api.port()).map_err(|problem| match problem {
        Problem::Endpoint(found) => Problem::UrlHost { found, api },
        other => other,
    })?;
    let url = format!("{scheme}://{endpoint}");
    match &rest[host.len()..] {
        "" | "/" => Ok(url),
        _ => Err(Problem::UrlPath { meant: url, api }),
    }
}

/// Parses a TCP port.
///
/// # Errors
/// Not a number from 1 to 65535.
pub fn port(digits: &str) -> Result<u16, Problem> {
    match digits.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Problem::Port(Shown::of(digits))),
    }
}

fn no_scheme(text: &str, rest: &str, api: Api) -> Problem {
    let meant = brackets_missing(rest, api.port(), Url::Yes)
        .or_else(|| endpoint(rest, api.port()).ok().map(|endpoint| endpoint.to_string()));
    Problem::UrlScheme {
        found: Shown::of(text),
        meant: meant.map(|endpoint| format!("http://{endpoint}")),
        api,
    }
}

/// Whether an address is part of a URL, where an IPv6 address always needs brackets (RFC 3986).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Url {
    Yes,
    No,
}

/// Returns the probably intended form of an IPv6 address without the brackets that it needs. Four
/// or five digits at its end that can be a port count as the port. Outside of a URL an address
/// without such an end needs no brackets.
fn brackets_missing(text: &str, port_default: u16, url: Url) -> Option<String> {
    let is_ipv6 = |host: &str| host.parse::<Ipv6Addr>().is_ok();
    let split = text.rsplit_once(':');
    let ends_in_port = split.filter(|(host, digits)| {
        is_ipv6(host) && (4..=5).contains(&digits.len()) && port(digits).is_ok()
    });
    match ends_in_port {
        Some((host, digits)) => Some(format!("[{host}]:{digits}")),
        None if url == Url::Yes && is_ipv6(text) => Some(format!("[{text}]:{port_default}")),
        None => None,
    }
}

fn endpoint(text: &str, port_default: u16) -> Result<Endpoint, Problem> {
    if let Some(meant) = brackets_missing(text, port_default, Url::No) {
        return Err(Problem::Brackets { found: Shown::of(text), meant });
    }
    let parsed = Endpoint::parse(text, Some(port_default)).map_err(|_| wrong_endpoint(text))?;
    if !is_host(parsed.host()) {
        return Err(Problem::Endpoint(Shown::of(text)));
    }
    if parsed.ip().is_some_and(|ip| ip.is_unspecified()) {
        return Err(Problem::Unspecified(Shown::of(text)));
    }
    Ok(parsed)
}

fn wrong_endpoint(text: &str) -> Problem {
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) || is_address(host) => Problem::Port(Shown::of(port)),
        _ => Problem::Endpoint(Shown::of(text)),
    }
}

fn is_host(host: &str) -> bool {
    if host.contains(':') {
        return host.parse::<Ipv6Addr>().is_ok();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.chars().all(plain)
}

fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    bare.unwrap_or(host).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_port_alone_listens_on_all_ipv4_addresses() {
        for text in ["5000", ":5000", "*:5000", "0.0.0.0:5000"] {
            assert_eq!(listen(text).unwrap().to_string(), "0.0.0.0:5000", "{text}");
        }
        assert_eq!(listen("[::]:5000").unwrap().to_string(), "[::]:5000");
    }

    #[test]
    fn what_cannot_be_listened_on_is_refused() {
        for text in ["", "localhost:5000", "0.0.0.0", "::1", "5000:", "*", ":"] {
            let problem = listen(text).unwrap_err();
            assert!(matches!(problem, Problem::Listen(_)), "{text}: {problem:?}");
        }
        for text in ["0", ":65536", "127.0.0.1:0", "127.0.0.1:99999", "[::]:x", "::1:x"] {
            let problem = listen(text).unwrap_err();
            assert!(matches!(problem, Problem::Port(_)), "{text}: {problem:?}");
        }
    }

    #[test]
    fn a_member_may_leave_out_the_port() {
        for (text, whole) in [
            ("10.0.0.11", "10.0.0.11:5432"),
            ("pg-1.example:6432", "pg-1.example:6432"),
            ("fd00::11", "[fd00::11]:5432"),
            ("[fd00::11]:6432", "[fd00::11]:6432"),
        ] {
            assert_eq!(postgres(text).unwrap().to_string(), whole);
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused() {
        for text in ["", "/run/postgresql", "pg 1", "http://pg1:5432", "a:b:c"] {
            let problem = postgres(text).unwrap_err();
            assert!(matches!(problem, Problem::Endpoint(_)), "{text}: {problem:?}");
        }
        for text in ["pg1:", "pg1:0", "pg1:65536", "[fd00::1]:x"] {
            let problem = postgres(text).unwrap_err();
            assert!(matches!(problem, Problem::Port(_)), "{text}: {problem:?}");
        }
        let problem = postgres("0.0.0.0:5432").unwrap_err();
        assert!(matches!(problem, Problem::Unspecified(_)));
    }

    #[test]
    fn an_ipv6_address_with_a_port_needs_brackets() {
        let meant = |problem: Problem| match problem {
            Problem::Brackets { meant, .. } => meant,
            other => panic!("{other:?}"),
        };
        for (text, whole) in [
            ("http://fd00::1:8008", "http://[fd00::1]:8008"),
            ("https://fd00::1:8008/", "https://[fd00::1]:8008"),
            ("http://fd00::11", "http://[fd00::11]:8008"),
            ("http://2001:db8:0:0:0:0:0:1234", "http://[2001:db8:0:0:0:0:0:1234]:8008"),
        ] {
            assert_eq!(meant(patroni_url(text).unwrap_err()), whole, "{text}");
        }
        assert_eq!(meant(postgres("fd00::1:5432").unwrap_err()), "[fd00::1]:5432");
        assert_eq!(meant(listen("::1:15000").unwrap_err()), "[::1]:15000");
        assert_eq!(meant(listen(":::5000").unwrap_err()), "[::]:5000");
        assert_eq!(
            listen("::1:15000").unwrap_err().to_string(),
            "`::1:15000`: an IPv6 address needs brackets: [::1]:15000"
        );
        let remedy = patroni_url("fd00::1:8008").unwrap_err().remedy();
        assert_eq!(remedy.unwrap(), "did you mean http://[fd00::1]:8008?");
        assert_eq!(postgres("2001:db8:0:0:0:0:0:1234").unwrap().port(), 5432);
    }

    #[test]
    fn a_patroni_url_is_completed() {
        for (text, whole) in [
            ("http://10.0.0.11", "http://10.0.0.11:8008"),
            ("HTTPS://pg1:8009/", "https://pg1:8009"),
            ("http://[fd00::11]", "http://[fd00::11]:8008"),
        ] {
            assert_eq!(patroni_url(text).unwrap(), whole);
        }
    }

    #[test]
    fn a_patroni_url_with_credentials_is_refused_and_not_repeated() {
        let problem = patroni_url("http://admin:geheim@10.0.0.11:8008").unwrap_err();
        assert_eq!(problem, Problem::UrlCredentials(Api::Patroni));
        assert!(!format!("{problem} {problem:?} {:?}", problem.remedy()).contains("geheim"));
    }

    #[test]
    fn a_url_of_etcd_has_its_own_port_and_words() {
        assert_eq!(etcd_url("http://pg1").unwrap(), "http://pg1:2379");
        for (text, meant) in [
            ("pg1", "did you mean http://pg1:2379?"),
            ("http://pg1/v3", "write http://pg1:2379; pgsteer adds etcd's paths itself"),
            ("http://a:b@pg1", "leave it out and set username and password_file"),
        ] {
            assert_eq!(etcd_url(text).unwrap_err().remedy().unwrap(), meant);
        }
    }

    #[test]
    fn other_urls_are_refused_with_what_was_meant() {
        for (text, meant) in [
            ("10.0.0.11:8008", "did you mean http://10.0.0.11:8008?"),
            ("ftp://10.0.0.11", "did you mean http://10.0.0.11:8008?"),
            ("!", "as http://10.0.0.11:8008"),
            ("http://", "as http://10.0.0.11:8008"),
            ("http://a b", "as http://10.0.0.11:8008"),
            (
                "http://pg1:8008/cluster?x",
                "write http://pg1:8008; pgsteer adds Patroni's paths itself",
            ),
        ] {
            assert_eq!(patroni_url(text).unwrap_err().remedy().unwrap(), meant);
        }
    }

    proptest! {
        #[test]
        fn a_parsed_value_is_written_and_parsed_again_without_a_change(
            text in prop_oneof!["https?://[a-z0-9.:/\\[\\]é]{0,12}", "[a-f0-9.:\\[\\]*]{0,12}", any::<String>()]
        ) {
            if let Ok(url) = patroni_url(&text) {
                prop_assert_eq!(patroni_url(&url), Ok(url.clone()));
            }
            if let Ok(member) = postgres(&text) {
                prop_assert_eq!(postgres(&member.to_string()), Ok(member.clone()));
            }
            if let Ok(address) = listen(&text) {
                prop_assert_eq!(listen(&address.to_string()), Ok(address));
            }
        }
    }
}
