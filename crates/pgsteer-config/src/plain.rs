//! Texts that are used unchanged: names of a login, paths of files.

use std::net::IpAddr;
use std::path::PathBuf;

use pgsteer_core::names::{ServiceName, check_name};
use pgsteer_core::question::LINE_BYTES_MAX;
use pgsteer_core::settings::{Network, StateDirectory, VipConfig, VipRefusal};

use crate::limits::{
    LOGIN_NAME_BYTES_MAX, PATH_BYTES_MAX, SERVER_KEYWORDS_BYTES_MAX, SOCKET_PATH_BYTES_MAX,
};
use crate::problem::{Problem, Shown};

/// Checks a user or database name of PostgreSQL.
///
/// # Errors
/// An empty text, one longer than [`LOGIN_NAME_BYTES_MAX`], or one with a NUL, which would end it
/// early in the startup packet.
pub fn login(text: &str) -> Result<String, Problem> {
    let fits = is_within(text, LOGIN_NAME_BYTES_MAX);
    fits.then(|| text.to_owned()).ok_or(Problem::Login)
}

/// Checks a part of the name of a key in etcd: Patroni's scope, the name of a user.
///
/// # Errors
/// A text that is not a name.
pub fn name(text: &str) -> Result<String, Problem> {
    check_name(text).map(|()| text.to_owned()).map_err(Problem::Name)
}

/// Parses Patroni's namespace as Patroni does (`dcs/__init__.py`, `_base_path`): leading and
/// trailing slashes are ignored. `/` is the root.
///
/// # Errors
/// A text that is not a name.
pub fn namespace(text: &str) -> Result<String, Problem> {
    let text = name(text)?;
    let parts = text.split('/').filter(|part| !part.is_empty());
    Ok(parts.flat_map(|part| ["/", part]).collect())
}

/// Checks the path of a file. The shell checks whether the file exists.
///
/// # Errors
/// An empty text, one longer than [`PATH_BYTES_MAX`], or one with a NUL.
pub fn path(text: &str) -> Result<PathBuf, Problem> {
    let fits = is_within(text, PATH_BYTES_MAX);
    fits.then(|| PathBuf::from(text)).ok_or(Problem::Path)
}

/// Checks the keywords of a server that is added by HAProxy's Runtime API.
///
/// # Errors
/// A text longer than [`SERVER_KEYWORDS_BYTES_MAX`], or one with a character that could end the command.
pub fn server_keywords(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || " ._-:/,@%+=[]()".contains(c);
    let is_valid = text.len() <= SERVER_KEYWORDS_BYTES_MAX && text.chars().all(fits);
    is_valid.then(|| text.to_owned()).ok_or_else(|| Problem::ServerKeywords(Shown::of(text)))
}

/// Parses a network as `10.0.0.0/8`, or one address.
///
/// # Errors
/// A text that is neither.
pub fn network(text: &str) -> Result<Network, Problem> {
    let parsed = match text.split_once('/') {
        None => text.parse().ok().map(Network::of),
        Some((address, prefix)) => {
            let parsed = address.parse().ok().zip(prefix.parse().ok());
            parsed.and_then(|(address, prefix)| Network::new(address, prefix))
        }
    };
    parsed.ok_or_else(|| Problem::Network(Shown::of(text)))
}

/// Parses an address that can follow a service, with its prefix, as `10.0.0.50/24`.
///
/// # Errors
/// A text that is not an address with a prefix, or an address that clients cannot use.
pub fn vip(text: &str) -> Result<(IpAddr, u8), Problem> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(match text.parse() {
            Ok(address) => Problem::VipWithoutPrefix(address),
            Err(_) => Problem::Vip(Shown::of(text)),
        });
    };
    let parsed = address.parse().ok().zip(prefix.parse().ok());
    let (address, prefix) = parsed.ok_or_else(|| Problem::Vip(Shown::of(text)))?;
    match VipRefusal::of(address, prefix) {
        Some(refusal) => Err(Problem::VipRefused(Shown::of(text), refusal)),
        None => Ok((address, prefix)),
    }
}

/// Checks the name of a network interface, by Linux's rules. The shell checks that it exists.
///
/// # Errors
/// A text that cannot be the name of an interface.
pub fn interface(text: &str) -> Result<String, Problem> {
    let is_of_name = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':');
    let fits = (1..=VipConfig::INTERFACE_BYTES_MAX).contains(&text.len())
        && text.chars().all(is_of_name)
        && !matches!(text, "." | "..");
    fits.then(|| text.to_owned()).ok_or_else(|| Problem::Interface(Shown::of(text)))
}

/// Parses the name of a service.
///
/// # Errors
/// A text that is not a name.
pub fn service(text: &str) -> Result<ServiceName, Problem> {
    ServiceName::new(text).map_err(Problem::Name)
}

/// Parses a database system identifier: a whole number of 64 bits, which TOML cannot always hold.
///
/// # Errors
/// A text that is not such a number.
pub fn system_identifier(text: &str) -> Result<String, Problem> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok();
    is_number.then(|| text.to_owned()).ok_or_else(|| Problem::SystemIdentifier(Shown::of(text)))
}

/// Parses the directory of the stored member list, or `none`.
///
/// # Errors
/// A text that is not a path.
pub fn state_directory(text: &str) -> Result<StateDirectory, Problem> {
    match text {
        "none" => Ok(StateDirectory::Never),
        text => path(text).map(StateDirectory::At),
    }
}

/// Parses the path of a Unix socket; an empty text means none.
///
/// # Errors
/// A text that is not an absolute path of at most [`SOCKET_PATH_BYTES_MAX`] bytes.
pub fn socket(text: &str) -> Result<Option<PathBuf>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let fits = is_within(text, SOCKET_PATH_BYTES_MAX) && text.starts_with('/');
    fits.then(|| Some(PathBuf::from(text))).ok_or_else(|| Problem::SocketPath(Shown::of(text)))
}

/// Parses the permissions of a file, in octal digits.
///
/// # Errors
/// A text that is not three or four octal digits, or that does not let the owner read and write.
pub fn mode(text: &str) -> Result<u32, Problem> {
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    let parsed = u32::from_str_radix(digits, 8).ok().filter(|_| digits.len() == 3);
    let usable = parsed.filter(|mode| mode & 0o600 == 0o600);
    usable.ok_or_else(|| Problem::Mode(Shown::of(text)))
}

/// Checks a question for the agent. Its meaning depends on the services.
///
/// # Errors
/// A text that cannot be sent as a line.
pub fn question(text: &str) -> Result<String, Problem> {
    let fits = is_within(text, LINE_BYTES_MAX) && !text.contains(['\n', '\r']);
    fits.then(|| text.to_owned()).ok_or(Problem::Question(Shown::of(text)))
}

fn is_within(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_a_short_absolute_path_and_octal_permissions() {
        assert_eq!(socket(""), Ok(None));
        assert_eq!(socket("/run/a.sock"), Ok(Some(PathBuf::from("/run/a.sock"))));
        assert!(socket("run/a.sock").is_err());
        assert!(socket(&format!("/{}", "x".repeat(SOCKET_PATH_BYTES_MAX))).is_err());
        assert_eq!((mode("0660"), mode("600")), (Ok(0o660), Ok(0o600)));
        for wrong in ["", "0", "660 ", "0880", "0060", "00660", "rw"] {
            assert!(mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_namespace_is_read_as_patroni_reads_it() {
        for (text, meant) in
            [("/service", "/service"), ("service/", "/service"), ("//a//b/", "/a/b"), ("/", "")]
        {
            assert_eq!(namespace(text).unwrap(), meant);
        }
        assert!(namespace("").is_err());
    }
}
