//! The roles of members, and the words for them.

/// A role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The member that accepts writes.
    Primary,
    /// Any member that is fit to read from.
    Replica,
    /// The leader of a standby cluster, which accepts no writes.
    StandbyLeader,
}

impl Role {
    /// The members of this role, for a message.
    pub const fn plural(self) -> &'static str {
        match self {
            Role::Primary => "the primary",
            Role::Replica => "replicas",
            Role::StandbyLeader => "the standby leader",
        }
    }
}

/// Returns the role that a path or a question to an agent names.
pub fn role_of_word(word: &str) -> Option<Role> {
    match word.split('?').next().unwrap_or_default() {
        "primary" | "master" | "leader" | "read-write" | "write" => Some(Role::Primary),
        "standby-leader" | "standby_leader" => Some(Role::StandbyLeader),
        "replica"
        | "read-only"
        | "read"
        | "sync"
        | "synchronous"
        | "async"
        | "asynchronous"
        | "quorum"
        | "read-only-sync"
        | "read-only-synchronous"
        | "read-only-quorum" => Some(Role::Replica),
        _ => None,
    }
}

/// Returns the role in the name of a proxy, a host or a program. A name with both roles proves
/// nothing.
pub fn role_of_name(name: &str) -> Option<Role> {
    let name = name.to_ascii_lowercase();
    let parts = || name.split(|c: char| !c.is_ascii_alphanumeric());
    let has = |words: &[&str]| parts().any(|part| words.contains(&part));
    let primary = ["primary", "master", "leader", "write", "writes", "writer", "rw", "readwrite"];
    let replica = [
        "replica", "replicas", "standby", "standbys", "slave", "slaves", "read", "reads", "reader",
        "readers", "readonly", "ro",
    ];
    match (has(&primary), has(&replica)) {
        (true, false) => Some(Role::Primary),
        (false, true) => Some(Role::Replica),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_if_the_content_does_not() {
        assert_eq!(role_of_name("pg-primary_5000"), Some(Role::Primary));
        assert_eq!(role_of_name("mast-pgX_psql_readwrite"), Some(Role::Primary));
        assert_eq!(role_of_name("read"), Some(Role::Replica));
        assert_eq!(role_of_name("read_write"), None);
        assert_eq!(role_of_name("bread"), None);
    }
}
