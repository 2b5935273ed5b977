//! The problems of a single value, in words, with their remedies.
//!
//! A problem never contains a secret: users' texts are shown only through [`Shown`].

use std::fmt;
use std::net::IpAddr;

use pgsteer_core::names::NameError;
use pgsteer_core::probe::ProbeError;
use pgsteer_core::question::Unclear;
use pgsteer_core::settings::{VipConfig, VipRefusal};
use pgsteer_core::text::is_hidden;
use pgsteer_core::units::LAG_BYTES_MAX;
use pgsteer_core::units::size_text;
use thiserror::Error;

use crate::api::Api;
use crate::conflict::Conflict;
use crate::limits::{
    FILE_BYTES_MAX, LOGIN_NAME_BYTES_MAX, PATH_BYTES_MAX, PORT, SOCKET_PATH_BYTES_MAX,
};
use crate::range::{Seconds, Whole};

/// A problem of one value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// The text is not TOML here.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// The file cannot be read; the text is the system's.
    #[error("cannot read the file: {0}")]
    Unreadable(String),
    /// There is a directory with that name, and no file.
    #[error("cannot read the file: it is a directory")]
    Directory,
    /// The file contains bytes that are not UTF-8.
    #[error("the file is not text: line {line} is not UTF-8")]
    NoText {
        /// The line of the first such byte, from 1.
        line: usize,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    #[error("the file is larger than {}", size_text(FILE_BYTES_MAX as u64))]
    TooLarge,
    /// The key does not exist.
    #[error("there is no key `{key}` {}", in_table(.table))]
    UnknownKey {
        /// The key as written, safe to show.
        key: String,
        /// The table that contains it; empty at the top level.
        table: String,
        /// The key that was probably intended.
        near: Option<&'static str>,
        /// The existing keys.
        known: Vec<&'static str>,
    },
    /// A secret is in the file, but belongs elsewhere.
    #[error("a password does not belong in this file (its value is not shown)")]
    PasswordInFile,
    /// The value has the wrong type.
    #[error("expects {wants}, found {found}")]
    WrongType {
        /// The expected type.
        wants: &'static str,
        /// A valid value.
        example: String,
        /// The type that was found.
        found: &'static str,
    },
    /// The value is not a time in seconds.
    #[error("expects a number of seconds, found {found}")]
    NotSeconds {
        /// The text that was found.
        found: String,
        /// The accepted range.
        range: Seconds,
        /// The number that was probably intended.
        near: Option<String>,
    },
    /// The value is not a whole number.
    #[error("expects a whole number, found {found}")]
    NotWhole {
        /// The text that was found.
        found: String,
        /// The accepted range.
        range: Whole,
    },
    /// The number is out of its range.
    #[error("{found} is out of range")]
    OutOfRange {
        /// The number as written.
        found: Shown,
        /// The accepted range.
        range: String,
    },
    /// The word is not one of the accepted words.
    #[error("{found} is not one of the possible words")]
    UnknownWord {
        /// The word as written.
        found: Shown,
        /// The word that was probably intended.
        near: Option<&'static str>,
        /// The accepted words.
        words: Vec<&'static str>,
    },
    /// Not an address to listen on.
    #[error("{0} is not an address to listen on")]
    Listen(Shown),
    /// Not a network.
    #[error("{0} is neither a network nor an address")]
    Network(Shown),
    /// Not a socket of HAProxy.
    #[error("{0} is neither the path of a socket nor HOST:PORT")]
    HaproxySocket(Shown),
    /// Not the keywords of a server in HAProxy.
    #[error("{0} cannot follow the address of a server in a command of HAProxy")]
    ServerKeywords(Shown),
    /// Not a host and port to connect to.
    #[error("{0} is not HOST:PORT")]
    Endpoint(Shown),
    /// An invalid port.
    #[error("{0} is not a port")]
    Port(Shown),
    /// An IPv6 address with a port, but without the brackets that separate the two.
    #[error("{found}: an IPv6 address needs brackets: {meant}")]
    Brackets {
        /// The text as written.
        found: Shown,
        /// The form that was probably intended.
        meant: String,
    },
    /// An address that means all addresses, where one address is needed.
    #[error("{0} stands for all addresses of a machine, so no connection to it is possible")]
    Unspecified(Shown),
    /// Not `NAME=HOST:PORT`.
    #[error("{0} is not NAME=HOST:PORT")]
    Member(Shown),
    /// A URL with another scheme, or with none.
    #[error("{found} does not start with http:// or https://")]
    UrlScheme {
        /// The text as written.
        found: Shown,
        /// The URL that was probably intended.
        meant: Option<String>,
        /// The expected server.
        api: Api,
    },
    /// A URL without a host and port to connect to.
    #[error("{found} is not HOST:PORT")]
    UrlHost {
        /// The text in their place.
        found: Shown,
        /// The expected server.
        api: Api,
    },
    /// A URL with a path, a query or a fragment.
    #[error("the URL has more than scheme, host and port (it is not shown)")]
    UrlPath {
        /// The URL without the path.
        meant: String,
        /// The expected server.
        api: Api,
    },
    /// A URL with a user name or password in it.
    #[error("the URL has a user name or password in it (it is not shown)")]
    UrlCredentials(Api),
    /// Not a question to the agent.
    #[error("{0} is neither a service nor one of Patroni's health checks")]
    Question(Shown),
    /// One of Patroni's health checks, with a mistake.
    #[error("{0}")]
    Probe(ProbeError),
    /// Not a size.
    #[error("{found} is not a size")]
    Size {
        /// The text as written.
        found: Shown,
        /// The size that was probably intended.
        near: Option<String>,
    },
    /// Not a lag: neither size nor time.
    #[error("{found} is neither a size nor a time")]
    Lag {
        /// The text as written.
        found: Shown,
        /// The size or time that was probably intended.
        near: Option<String>,
    },
    /// Not a name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// Not a user or database name.
    #[error("not a user or database name of PostgreSQL: it is empty, too long or has a NUL")]
    Login,
    /// Accepted and excluded authentication methods in one list.
    #[error("{0} mixes accepted and excluded methods")]
    AuthMixed(Shown),
    /// An authentication method that pgsteer does not support.
    #[error("{0} allows no authentication method that pgsteer supports")]
    AuthUnsupported(Shown),
    /// Not a system identifier.
    #[error("{0} is not a system identifier")]
    SystemIdentifier(Shown),
    /// The text is not the path of a Unix socket.
    #[error("{0} is not a path of a socket")]
    SocketPath(Shown),
    /// The text is not the permissions of a file.
    #[error("{0} is not a mode of a socket")]
    Mode(Shown),
    /// Not an address with a prefix.
    #[error("{0} is not ADDRESS/PREFIX")]
    Vip(Shown),
    /// An address without a prefix.
    #[error("{0} has no prefix length")]
    VipWithoutPrefix(IpAddr),
    /// An address that cannot follow a service.
    #[error("{0}: {1}")]
    VipRefused(Shown, VipRefusal),
    /// Not the name of an interface.
    #[error("{0} is not the name of an interface")]
    Interface(Shown),
    /// Not a path.
    #[error("not a path of a file: it is empty, too long or has a NUL")]
    Path,
    /// Values that are valid individually and conflict.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

impl Problem {
    /// Returns the problem of `text`, which is not a question to the agent.
    pub fn of_question(text: &str, unclear: Option<Unclear>) -> Problem {
        match unclear {
            Some(Unclear::Probe(error)) if !Shown::hides(text) => Problem::Probe(error),
            _ => Problem::Question(Shown::of(text)),
        }
    }

    /// Returns the remedy as a complete phrase.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Problem::Syntax(_)
            | Problem::Name(_)
            | Problem::Probe(_)
            | Problem::Brackets { .. } => return None,
            Problem::Unreadable(_) => "check the path and that pgsteer's user may read it".into(),
            Problem::Directory => "name the file in it, as /etc/pgsteer/pgsteer.toml".into(),
            Problem::TooLarge | Problem::NoText { .. } => "is it really a configuration of pgsteer?".into(),
            Problem::UnknownKey { near, known, .. } => meant_or_list(*near, known, "the keys are"),
            Problem::PasswordInFile => {
                "put it into a file of its own and name that in [check] or [etcd]: password_file = \"/etc/pgsteer/password\"".into()
            }
            Problem::WrongType { example, .. } => format!("as in {example}"),
            Problem::NotSeconds { range, near: None, .. } => format!("a bare number {range}"),
            Problem::NotSeconds { range, near: Some(near), .. } => {
                format!("did you mean {near}? A bare number {range}")
            }
            Problem::NotWhole { range, .. } => format!("a bare number {range}"),
            Problem::OutOfRange { range, .. } => range.clone(),
            Problem::UnknownWord { near, words, .. } => meant_or_list(*near, words, "one of"),
            Problem::Listen(_) => {
                "write ADDRESS:PORT with an address of this machine, as 0.0.0.0:5000, 127.0.0.1:5000 or [::]:5000; a port alone means all IPv4 addresses".into()
            }
            Problem::Network(_) => "as 10.0.0.0/8, 192.168.1.7 or fd00::/8".into(),
            Problem::HaproxySocket(_) => {
                "as in HAProxy's `stats socket`: \"/run/haproxy/admin.sock\" or \"10.0.0.21:9999\"".into()
            }
            Problem::ServerKeywords(_) => {
                "write what follows the address on a `server` line, without quotes, `;` and `\\`, as \"check port 8008 inter 1s fall 2 rise 1\"".into()
            }
            Problem::Endpoint(_) => "as 10.0.0.11:5432, pg1.example:5432 or [fd00::11]:5432".into(),
            Problem::Port(_) => format!("a number {PORT}"),
            Problem::Unspecified(_) => "write the address that the member listens on".into(),
            Problem::Member(_) => "as n1=10.0.0.11:5432".into(),
            Problem::UrlScheme { meant: Some(url), .. } => format!("did you mean {url}?"),
            Problem::UrlScheme { meant: None, api, .. } | Problem::UrlHost { api, .. } => {
                format!("as {}", api.example())
            }
            Problem::UrlPath { meant, api } => {
                format!("write {meant}; pgsteer adds {}'s paths itself", api.owner())
            }
            Problem::UrlCredentials(Api::Etcd) => {
                "leave it out and set username and password_file".into()
            }
            Problem::UrlCredentials(Api::Pgsteer) => {
                "leave it out: other pgsteers are asked with the token of peers_token_file".into()
            }
            Problem::UrlCredentials(Api::Patroni) => {
                "leave it out: the pages of Patroni that pgsteer reads need no password; for verify_client set cert_file and key_file".into()
            }
            Problem::Size { near: Some(near), .. } | Problem::Lag { near: Some(near), .. } => {
                format!("did you mean {near}?")
            }
            Problem::Size { near: None, .. } => format!(
                "a whole number with B, kB, MB, GB or TB, up to {}, as \"16MB\"",
                size_text(LAG_BYTES_MAX)
            ),
            Problem::Lag { near: None, .. } => "as 16MB (B, kB, MB, GB, TB) or 10s (ms, s, min, h, d)".into(),
            Problem::Question(_) => {
                "write the name of a service, or a check such as primary, replica?lag=16MB, read-only or sync; then the member, if it is not the local one".into()
            }
            Problem::Login => format!("1 to {LOGIN_NAME_BYTES_MAX} bytes"),
            Problem::AuthMixed(_) => {
                "list either the accepted methods, or the excluded methods, each with `!` in front".into()
            }
            Problem::AuthUnsupported(_) => "pgsteer supports password, md5, scram-sha-256 and none".into(),
            Problem::SystemIdentifier(_) => {
                "a number as pg_controldata shows it, in quotes: system_identifier = \"7710713066760545906\"".into()
            }
            Problem::SocketPath(_) => {
                format!("an absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes, or \"\" for none")
            }
            Problem::Mode(_) => {
                "octal digits with read and write permission for the owner, in quotes: mode = \"0660\"".to_owned()
            }
            Problem::Vip(_) => "as 10.0.0.50/24 or fd00::50/64".into(),
            Problem::VipWithoutPrefix(ip) => {
                let prefix = if ip.is_ipv4() { 24 } else { 64 };
                format!("add that of the interface's network, as in {ip}/{prefix}")
            }
            Problem::VipRefused(..) => {
                "choose an address of the interface's network that no machine has, with the prefix length of that network, as 10.0.0.50/24".into()
            }
            Problem::Interface(_) => format!(
                "1 to {} bytes without blanks, slashes and colons, as eth0; `ip link` lists them",
                VipConfig::INTERFACE_BYTES_MAX
            ),
            Problem::Path => format!("1 to {PATH_BYTES_MAX} bytes"),
            Problem::Conflict(conflict) => conflict.remedy(),
        })
    }

    /// Returns true if the rest of the file was misread because of this problem, so that keys that
    /// seem to be missing may be there.
    pub(super) fn hides_the_rest(&self) -> bool {
        matches!(
            self,
            Problem::Syntax(_)
                | Problem::Unreadable(_)
                | Problem::Directory
                | Problem::NoText { .. }
                | Problem::TooLarge
        )
    }
}

fn in_table(table: &str) -> String {
    if table.is_empty() { "at the top of the file".to_owned() } else { format!("in [{table}]") }
}

fn meant_or_list(near: Option<&'static str>, all: &[&'static str], lead: &str) -> String {
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{lead} {}", all.join(", ")),
    }
}

/// A part of a user's text that is safe to show: quoted, short, on one line, and without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// The maximum number of characters that are shown.
    const CHARS_MAX: usize = 64;

    /// Copies `text` unless it may contain a secret: a URL or connection string with a password is
    /// the text that most often ends up in a wrong place.
    pub fn of(text: &str) -> Shown {
        if Shown::hides(text) {
            return Shown("what is written (not shown, it may hold a secret)".to_owned());
        }
        if text.is_empty() {
            return Shown("an empty text".to_owned());
        }
        Shown(format!("`{}`", on_one_line(text)))
    }

    fn hides(text: &str) -> bool {
        text.contains('@') || text.to_ascii_lowercase().contains("passw")
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key as part of a path of keys, quoted if TOML requires it.
pub(super) fn key_text(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if key.contains('@') {
        "(not shown)".to_owned()
    } else if key.is_empty() || !key.chars().all(bare) {
        format!("\"{}\"", on_one_line(key))
    } else {
        on_one_line(key)
    }
}

fn on_one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().take(Shown::CHARS_MAX) {
        if is_hidden(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if text.chars().nth(Shown::CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}
