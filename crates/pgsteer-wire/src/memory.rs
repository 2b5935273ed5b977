//! The stored identity and member list, as a small JSON file.
//!
//! `{"version": 1, "written_at": 1783166400, "scope": "demo", "system_identifier": "7001",
//! "urls": ["http://10.0.0.11:8008"], "members": [{"name": "n1", "host": "10.0.0.11", "port": 5432,
//! "patroni_url": "http://..."}]}`

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use pgsteer_core::claim::Found;
use pgsteer_core::identity::Identity;
use pgsteer_core::memory::Memory;
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::settings::defaults::MEMBERS_MAX;

/// The maximum size of such a file in bytes.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024;

/// The version that is written, and the only one that is accepted.
const VERSION: u32 = 1;

/// The reason why a file is not used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadMemory {
    /// It is not JSON of this shape.
    #[error("it is not as pgsteer writes it: {0}")]
    NotJson(String),
    /// It has another version.
    #[error("it is of version {0}, and version {VERSION} is read")]
    Version(u32),
    /// It has too many members.
    #[error("it has {0} members, and a cluster has at most {MEMBERS_MAX}")]
    TooMany(usize),
    /// It has too many URLs.
    #[error("it has {0} URLs of Patroni, and at most {MEMBERS_MAX} are configured")]
    TooManyUrls(usize),
    /// A member in it has no usable name or endpoint.
    #[error("a member in it: {0}")]
    Member(String),
}

#[derive(Serialize, Deserialize)]
struct Body {
    version: u32,
    /// Seconds since 1970.
    written_at: u64,
    scope: Option<String>,
    group: Option<u32>,
    system_identifier: Option<String>,
    /// Missing in files of early versions.
    #[serde(default)]
    urls: Vec<String>,
    members: Vec<MemberBody>,
}

#[derive(Serialize, Deserialize)]
struct MemberBody {
    name: String,
    host: String,
    port: u16,
    patroni_url: Option<String>,
}

/// Returns the text of the file. `written_at` is in seconds since 1970.
pub fn memory_text(memory: &Memory, written_at: u64) -> String {
    let Identity { scope, group, system_identifier } = memory.identity.clone();
    let member = |found: &Found| MemberBody {
        name: found.name.to_string(),
        host: found.postgres.host().to_owned(),
        port: found.postgres.port(),
        patroni_url: found.patroni_url.as_deref().map(str::to_owned),
    };
    let members = memory.members.iter().map(member).collect();
    let urls = memory.urls.clone();
    let body =
        Body { version: VERSION, written_at, scope, group, system_identifier, urls, members };
    // Serializing a struct of texts and numbers cannot fail.
    serde_json::to_string_pretty(&body).unwrap_or_default()
}

/// Parses the text of the file. Returns the memory and the time when it was written.
///
/// # Errors
/// The text is not such a file, or has another version.
pub fn parse_memory(text: &[u8]) -> Result<(Memory, u64), BadMemory> {
    let body: Body =
        serde_json::from_slice(text).map_err(|error| BadMemory::NotJson(error.to_string()))?;
    if body.version != VERSION {
        return Err(BadMemory::Version(body.version));
    }
    if body.members.len() > MEMBERS_MAX {
        return Err(BadMemory::TooMany(body.members.len()));
    }
    if body.urls.len() > MEMBERS_MAX {
        return Err(BadMemory::TooManyUrls(body.urls.len()));
    }
    let member = |member: MemberBody| {
        let name = MemberName::new(&member.name)?;
        let postgres = Endpoint::new(&member.host, member.port)?;
        Ok(Found { name, postgres, patroni_url: member.patroni_url.map(Arc::from) })
    };
    let members: Result<Vec<Found>, pgsteer_core::names::NameError> =
        body.members.into_iter().map(member).collect();
    let members = members.map_err(|error| BadMemory::Member(error.to_string()))?;
    let (scope, group, system_identifier) = (body.scope, body.group, body.system_identifier);
    let identity = Identity { scope, group, system_identifier };
    Ok((Memory { identity, members, urls: body.urls }, body.written_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let found = |name: &str| Found {
            name: MemberName::new(name).unwrap(),
            postgres: Endpoint::new("::1", 15432).unwrap(),
            patroni_url: Some(Arc::from("http://[::1]:8008")),
        };
        Memory {
            identity: Identity::of_scope("demo"),
            members: vec![found("n1"), found("ü\"2")],
            urls: vec!["http://10.0.0.11:8008".to_owned()],
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = memory_text(&memory(), 1_783_166_400);
        assert_eq!(parse_memory(text.as_bytes()), Ok((memory(), 1_783_166_400)));
    }

    #[test]
    fn a_file_without_urls_is_read() {
        let text = memory_text(&Memory { urls: Vec::new(), ..memory() }, 1);
        let old = text.replace("\"urls\": [],", "");
        assert_ne!(old, text);
        assert_eq!(parse_memory(old.as_bytes()).unwrap().0.urls, Vec::<String>::new());
    }

    #[test]
    fn a_truncated_or_changed_file_is_refused() {
        let text = memory_text(&memory(), 1);
        for cut in 0..text.len() {
            assert!(parse_memory(&text.as_bytes()[..cut]).is_err(), "{cut}");
        }
        let changed = |from: &str, to: &str| parse_memory(text.replace(from, to).as_bytes());
        assert_eq!(changed("\"version\": 1", "\"version\": 2"), Err(BadMemory::Version(2)));
        assert!(matches!(changed("\"port\": 15432", "\"port\": 0"), Err(BadMemory::Member(_))));
        assert!(matches!(changed("\"n1\"", "\"\\n\""), Err(BadMemory::Member(_))));
        assert!(matches!(changed("15432", "99999"), Err(BadMemory::NotJson(_))));
        for garbage in [&b""[..], b"[]", b"{}", b"\xff", b"null"] {
            assert!(parse_memory(garbage).is_err());
        }
        let many =
            Memory { members: vec![memory().members[0].clone(); MEMBERS_MAX + 1], ..memory() };
        let many = memory_text(&many, 1);
        assert_eq!(parse_memory(many.as_bytes()), Err(BadMemory::TooMany(MEMBERS_MAX + 1)));
        assert!(many.len() < MEMORY_BYTES_MAX);
        let urls = vec!["http://10.0.0.11:8008".to_owned(); MEMBERS_MAX + 1];
        let many = memory_text(&Memory { urls, ..memory() }, 1);
        assert_eq!(parse_memory(many.as_bytes()), Err(BadMemory::TooManyUrls(MEMBERS_MAX + 1)));
    }
}
