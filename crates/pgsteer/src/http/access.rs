//! Who may read the pages: by address, by Host header, and by a login.

use std::net::IpAddr;

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use pgsteer_core::settings::{HttpConfig, Network, Protect};
use pgsteer_core::text::clean;

use super::answer::{Page, plain};
use crate::secret::Secret;

/// The rules, with the secrets that their files contain.
#[derive(Debug)]
pub struct Access {
    allow: Vec<Network>,
    hosts: Vec<String>,
    token: Option<Secret>,
    logins: Vec<Secret>,
    protect: Protect,
}

/// The kind of a page, for [`Protect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Health checks.
    Health,
    /// The metrics.
    Metrics,
    /// Status, history and the page for browsers.
    Page,
}

impl Access {
    /// Everyone may read everything.
    #[cfg(test)]
    pub fn open() -> Access {
        let (allow, hosts, logins) = (Vec::new(), Vec::new(), Vec::new());
        Access { allow, hosts, token: None, logins, protect: Protect::Metrics }
    }

    /// Reads the files of `config`.
    ///
    /// # Errors
    /// A file that cannot be read, or a line of the logins without a colon. The message names the file
    /// and shows nothing of its contents.
    pub fn read(config: &HttpConfig) -> anyhow::Result<Access> {
        let token = config.token_file.as_deref().map(Secret::read).transpose()?;
        let logins = match &config.login_file {
            Some(file) => Secret::read_lines(file)?,
            None => Vec::new(),
        };
        if let Some(number) = logins.iter().position(|login| !login.expose().contains(':')) {
            let file = config.login_file.iter().map(|file| file.display().to_string());
            bail!("{}: login {} is not `user:password`", file.collect::<String>(), number + 1);
        }
        let (allow, hosts) = (config.allow.clone(), config.hosts.clone());
        Ok(Access { allow, hosts, token, logins, protect: config.protect })
    }

    /// Returns the refusal of a request by `peer`; none if it is answered.
    pub fn refusal(&self, class: Class, peer: IpAddr, headers: &HeaderMap) -> Option<Page> {
        if let Some(host) = self.foreign_host(headers) {
            let body = format!(
                "this pgsteer is not reached as {host}: add the name to `hosts` in [http]\n",
                host = clean(&host)
            );
            return Some(plain(StatusCode::FORBIDDEN, body));
        }
        if !self.protects(class) {
            return None;
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(peer)) {
            let peer = peer.to_canonical();
            let body = format!(
                "{peer} may not read this page: `allow` in [http] lists the allowed addresses\n"
            );
            return Some(plain(StatusCode::FORBIDDEN, body));
        }
        let needs_login = self.token.is_some() || !self.logins.is_empty();
        (needs_login && !self.is_logged_in(headers)).then(|| self.login_wanted())
    }

    fn protects(&self, class: Class) -> bool {
        match class {
            Class::Page => true,
            Class::Metrics => self.protect >= Protect::Metrics,
            Class::Health => self.protect == Protect::All,
        }
    }

    /// The name in the Host header, if it is not one of ours. An address cannot be a name of another
    /// page, and a request without the header comes from no browser.
    fn foreign_host(&self, headers: &HeaderMap) -> Option<String> {
        if self.hosts.is_empty() {
            return None;
        }
        let given = headers.get(HOST)?.to_str().unwrap_or("?");
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let host = match given.rsplit_once(':') {
            Some((host, port)) if is_port(port) && !host.is_empty() => host,
            _ => given,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_own = |name: &str| name.eq_ignore_ascii_case(host.trim_end_matches('.'));
        let is_known = bare.parse::<IpAddr>().is_ok()
            || is_own("localhost")
            || self.hosts.iter().any(|name| is_own(name));
        (!is_known).then(|| host.to_owned())
    }

    fn is_logged_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, credentials)) = given.and_then(|given| given.split_once(' ')) else {
            return false;
        };
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.token.as_ref().is_some_and(|token| token.is(credentials));
        }
        let decoded = STANDARD.decode(credentials).ok().and_then(|it| String::from_utf8(it).ok());
        scheme.eq_ignore_ascii_case("basic")
            && decoded.is_some_and(|login| self.logins.iter().any(|known| known.is(&login)))
    }

    fn login_wanted(&self) -> Page {
        let scheme = match self.logins.is_empty() {
            true => "Bearer",
            false => "Basic realm=\"pgsteer\", charset=\"UTF-8\"",
        };
        let body = "this page needs a login: `login_file` and `token_file` in [http]\n";
        let mut answer = plain(StatusCode::UNAUTHORIZED, body);
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            allow: vec![Network::new([10, 0, 0, 0].into(), 8).unwrap()],
            hosts: vec!["pgsteer.example".to_owned()],
            token: Some(Secret::from("t0ken")),
            logins: vec![Secret::from("ann:a:b"), Secret::from("bob:secret")],
            protect: Protect::Metrics,
        }
    }

    fn headers(host: &'static str, authorization: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        if !authorization.is_empty() {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(authorization));
        }
        headers
    }

    /// The status of the refusal; 200 without one.
    fn status(class: Class, peer: [u8; 4], headers: &HeaderMap) -> u16 {
        let refusal = access().refusal(class, peer.into(), headers);
        refusal.map_or(200, |page| page.status().as_u16())
    }

    #[test]
    fn a_page_needs_an_allowed_address_and_a_login() {
        // "ann:a:b" and "bob:wrong" in base64.
        for (authorization, expected) in [
            ("", 401),
            ("Bearer t0ken", 200),
            ("bearer  t0ken", 200),
            ("Bearer t0ken2", 401),
            ("Basic YW5uOmE6Yg==", 200),
            ("Basic Ym9iOndyb25n", 401),
            ("Basic ???", 401),
            ("t0ken", 401),
        ] {
            let headers = headers("10.0.0.1:7000", authorization);
            assert_eq!(status(Class::Page, [10, 1, 2, 3], &headers), expected, "{authorization}");
            assert_eq!(status(Class::Page, [192, 0, 2, 1], &headers), 403, "{authorization}");
        }
    }

    #[test]
    fn health_checks_are_open_unless_all_is_protected() {
        let plain = headers("10.0.0.1", "");
        assert_eq!(status(Class::Health, [192, 0, 2, 1], &plain), 200);
        assert_eq!(status(Class::Metrics, [10, 0, 0, 9], &plain), 401);
        let all = Access { protect: Protect::All, ..access() };
        let refusal = all.refusal(Class::Health, [10, 0, 0, 9].into(), &plain);
        assert_eq!(refusal.unwrap().status(), 401);
        let pages = Access { protect: Protect::Pages, ..access() };
        assert!(pages.refusal(Class::Metrics, [192, 0, 2, 1].into(), &plain).is_none());
    }

    #[test]
    fn a_foreign_name_in_the_host_header_is_refused_and_addresses_are_not() {
        for (host, expected) in [
            ("pgsteer.example", 200),
            ("PGSTEER.example.:7000", 200),
            ("localhost:7000", 200),
            ("[::1]:7000", 200),
            ("10.0.0.7", 200),
            ("evil.example", 403),
            ("pgsteer.example.evil", 403),
            ("", 403),
        ] {
            assert_eq!(
                status(Class::Health, [10, 0, 0, 9], &headers(host, "")),
                expected,
                "{host}"
            );
        }
        assert_eq!(status(Class::Health, [10, 0, 0, 9], &HeaderMap::new()), 200);
    }
}
