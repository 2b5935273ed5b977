//! Names and addresses: short, checked strings that are cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::text::{clean, is_hidden};

/// The longest name of a member, a service or a cluster, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// PostgreSQL's default port, for members whose host alone is known.
pub const POSTGRES_PORT: u16 = 5432;

/// Why a text cannot be a name or an address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// The text has a control or invisible character ([`is_hidden`]). It would break log lines and
    /// pages, or make two names look alike.
    #[error("a name must not contain control characters or invisible characters")]
    Control,
    /// The port is missing or not a number from 1 to 65535.
    #[error("`{0}` is not HOST:PORT with a port from 1 to 65535")]
    Port(String),
}

/// The name of a cluster without a configured name and without a scope.
pub const CLUSTER_NAME: &str = "main";

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and converts it to a name.
            ///
            /// # Errors
            /// The text is empty, longer than [`NAME_BYTES_MAX`], or has a control or invisible
            /// character.
            pub fn new(text: &str) -> Result<$name, NameError> {
                check_name(text).map(|()| $name(Arc::from(text)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = String::deserialize(deserializer)?;
                $name::new(&text).map_err(de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A member of the cluster, by Patroni's `name`.
    MemberName
}
name! {
    /// A service: one listening port and the role it requires.
    ServiceName
}
name! {
    /// An address that follows a service, by the operator's name for it.
    VipName
}
name! {
    /// The cluster, by the operator's name for it.
    ClusterName
}

/// The name of a cluster without a configured name, until its scope is known.
impl Default for ClusterName {
    fn default() -> ClusterName {
        ClusterName(Arc::from(CLUSTER_NAME))
    }
}

/// Returns the names separated by commas.
pub fn listed(names: &[MemberName]) -> String {
    let names: Vec<&str> = names.iter().map(MemberName::as_str).collect();
    names.join(", ")
}

/// Checks that a name is not empty, not too long, and without hidden characters.
///
/// # Errors
/// The text is not a name.
pub fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    if text.chars().any(is_hidden) {
        return Err(NameError::Control);
    }
    Ok(())
}

/// Where a server listens: a host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: Arc<str>,
    port: u16,
}

impl Endpoint {
    /// Returns the endpoint of a bare host (no brackets around IPv6) and a port.
    ///
    /// # Errors
    /// The host is not a name, or the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Endpoint, NameError> {
        check_name(host)?;
        if port == 0 {
            return Err(NameError::Port(clean(&format!("{host}:{port}")).into_owned()));
        }
        Ok(Endpoint { host: Arc::from(host), port })
    }

    /// Parses `host:port`, `1.2.3.4:5432` or `[::1]:5432`. If the text has no port, `port_default`
    /// is used.
    ///
    /// # Errors
    /// The host is not a name, the port is not a number from 1 to 65535, or there is no port at
    /// all.
    pub fn parse(text: &str, port_default: Option<u16>) -> Result<Endpoint, NameError> {
        let bad = || NameError::Port(clean(text).into_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
                match tail.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if tail.is_empty() => (host, None),
                    None => return Err(bad()),
                }
            }
            // A bare IPv6 address has more than one colon and has no port.
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(digits) => digits.parse().map_err(|_| bad())?,
            None => port_default.ok_or_else(bad)?,
        };
        Endpoint::new(host, port).map_err(|err| match err {
            NameError::Port(_) => bad(),
            other => other,
        })
    }

    /// The host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the same host with another port.
    pub fn with_port(&self, port: u16) -> Endpoint {
        Endpoint { host: self.host.clone(), port }
    }

    /// The address, if the host is an address and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl Endpoint {
    /// Returns true if the host is the loopback interface, so the traffic does not leave this
    /// machine.
    pub fn is_loopback(&self) -> bool {
        &*self.host == "localhost" || self.ip().is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_back_as_it_was_written() {
        for text in ["10.0.0.1:5432", "[::1]:5432", "pg-1.example:6432"] {
            assert_eq!(Endpoint::parse(text, None).unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::parse("::1", Some(5432)).unwrap().to_string(), "[::1]:5432");
        assert_eq!(Endpoint::parse("pg-1", Some(5432)).unwrap().to_string(), "pg-1:5432");
    }

    #[test]
    fn an_endpoint_without_a_usable_port_is_refused() {
        for text in ["pg-1", "pg-1:", "pg-1:0", "pg-1:65536", "[::1", "[::1]x", ":5432", ""] {
            assert!(Endpoint::parse(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_has_only_characters_that_are_seen() {
        for text in ["n\n1", "n\u{1b}1", "n\u{202e}1", "n1\u{200b}", "\u{feff}n1", "n\u{2028}1"] {
            assert_eq!(MemberName::new(text), Err(NameError::Control), "{text:?}");
            assert_eq!(Endpoint::new(text, 5432), Err(NameError::Control), "{text:?}");
        }
        for text in ["n1", "pg-größer", "東京_1", "a b", "n1.example:5432"] {
            assert_eq!(MemberName::new(text).unwrap().as_str(), text);
        }
    }
}
