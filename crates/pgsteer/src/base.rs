//! Base addresses: the URLs of Patroni, etcd and other pgsteers, from the configuration, from Patroni's
//! member list or from a command.

use std::sync::Arc;

use hyper::Uri;
use hyper::http::uri::Scheme;
use pgsteer_core::claim::Failure;
use pgsteer_core::names::Endpoint;

/// The kind of server at a base address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Patroni's REST API.
    Patroni,
    /// The gateway of etcd.
    Etcd,
    /// The pages of a pgsteer.
    Pgsteer,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Peer::Patroni => "Patroni",
            Peer::Etcd => "etcd",
            Peer::Pgsteer => "pgsteer",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Peer::Patroni => "http://10.0.0.11:8008",
            Peer::Etcd => "http://10.0.0.11:2379",
            Peer::Pgsteer => "http://10.0.0.11:7000",
        }
    }
}

/// A base address, as `http://10.0.0.11:8008`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    peer: Peer,
    url: Arc<str>,
    https: bool,
    endpoint: Endpoint,
    path: String,
}

impl Base {
    /// Parses a base address of Patroni. Without a port the scheme's default port is used.
    ///
    /// # Errors
    /// Returns a sentence that describes the problem. It does not repeat an address that contains a
    /// user, because the address may contain a password too.
    pub fn parse(url: &str) -> Result<Base, String> {
        Base::of(Peer::Patroni, url)
    }

    /// Same as [`Base::parse`], for the given kind of server.
    ///
    /// # Errors
    /// Same as [`Base::parse`].
    pub fn of(peer: Peer, url: &str) -> Result<Base, String> {
        if url.contains('@') {
            return Err("an address must not name a user".to_owned());
        }
        let bad =
            |why: &str| format!("`{url}` is not an address such as {}: {why}", peer.example());
        let uri: Uri = url.parse().map_err(|_| match url.contains('[') {
            false if url.matches(':').count() > 2 => {
                bad("an IPv6 address needs brackets, as in http://[::1]:8008")
            }
            _ => bad("not a URL"),
        })?;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(bad("neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| bad("no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Some(if https { 443 } else { 80 }),
            port => port.and_then(|text| port_of(text.strip_prefix(':')?)),
        };
        let port = port.ok_or_else(|| bad("the port is not a number from 1 to 65535"))?;
        let endpoint = Endpoint::new(host, port).map_err(|err| bad(&err.to_string()))?;
        Ok(Base {
            peer,
            url: Arc::from(url.trim_end_matches('/')),
            https,
            endpoint,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The address as written, without a trailing slash.
    pub fn url(&self) -> &Arc<str> {
        &self.url
    }

    /// The host as written, without brackets.
    pub fn host(&self) -> &str {
        self.endpoint.host()
    }

    /// Returns true if requests to this address use TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host and port to connect to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The request path for `path` below this base address.
    pub fn path_to(&self, path: &str) -> String {
        format!("{}{path}", self.path)
    }
}

fn port_of(digits: &str) -> Option<u16> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| is_number && *port != 0)
}

/// The failure for a server that answers, but is not the expected kind of server.
pub fn strange(base: &Base, how: &str) -> Failure {
    let (url, peer) = (&base.url, base.peer.name());
    Failure::Malformed(Arc::from(format!("{url} answers, but not as {peer} does: {how}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_address_is_read_with_its_port_and_path() {
        for (url, endpoint, path) in [
            ("http://10.0.0.11:8008", "10.0.0.11:8008", ""),
            ("http://10.0.0.11:8008/", "10.0.0.11:8008", ""),
            ("https://[::1]:8008", "[::1]:8008", ""),
            ("http://pg-1", "pg-1:80", ""),
            ("https://gate.example/pg-1/", "gate.example:443", "/pg-1"),
        ] {
            let base = Base::parse(url).unwrap();
            assert_eq!((&*base.endpoint.to_string(), &*base.path), (endpoint, path));
        }
    }

    #[test]
    fn an_invalid_base_address_is_refused_and_its_password_is_not_repeated() {
        for url in ["", "pg-1:8008", "10.0.0.11", "ftp://pg-1", "http://", "http://a b", "/x"] {
            let why = Base::parse(url).unwrap_err();
            assert!(why.contains(&format!("`{url}`")), "{why}");
        }
        for port in ["", "0", "70000", "x", "+1"] {
            let why = Base::parse(&format!("http://pg-1:{port}")).unwrap_err();
            assert!(why.contains("port"), "{why}");
        }
        for url in ["http://fd00::1:8008", "http://::1"] {
            let why = Base::parse(url).unwrap_err();
            assert!(why.contains("brackets"), "{why}");
        }
        let why = Base::parse("http://admin:hunter2@pg-1:8008").unwrap_err();
        assert!(!why.contains("hunter2"), "{why}");
    }
}
