//! How the check login may authenticate: libpq's `require_auth`.

use std::collections::BTreeSet;
use std::fmt;

use super::SslMode;

/// A way in which a server may authenticate the check login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthMethod {
    /// The password in clear.
    Password,
    /// A hash of the password that is worth as much as the password.
    Md5,
    /// SCRAM-SHA-256: the server does not learn the password, and proves that it has it.
    ScramSha256,
    /// The server asks for nothing, as with `trust` in `pg_hba.conf`.
    None,
}

impl AuthMethod {
    /// All of them.
    pub const ALL: [AuthMethod; 4] =
        [AuthMethod::Password, AuthMethod::Md5, AuthMethod::ScramSha256, AuthMethod::None];

    /// The name used in the configuration, which is libpq's.
    pub const fn as_str(self) -> &'static str {
        match self {
            AuthMethod::Password => "password",
            AuthMethod::Md5 => "md5",
            AuthMethod::ScramSha256 => "scram-sha-256",
            AuthMethod::None => "none",
        }
    }
}

/// The methods that the check login accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequireAuth(BTreeSet<AuthMethod>);

impl RequireAuth {
    /// The methods accepted by default: all if the server's certificate is verified, else those
    /// that do not reveal the password to the server.
    pub fn usual(sslmode: SslMode) -> RequireAuth {
        match sslmode {
            SslMode::VerifyCa | SslMode::VerifyFull => RequireAuth(AuthMethod::ALL.into()),
            SslMode::Disable | SslMode::Prefer | SslMode::Require => {
                RequireAuth([AuthMethod::ScramSha256, AuthMethod::None].into())
            }
        }
    }

    /// These methods; none if the set is empty.
    pub fn of(methods: BTreeSet<AuthMethod>) -> Option<RequireAuth> {
        (!methods.is_empty()).then_some(RequireAuth(methods))
    }

    /// Returns true if the check login accepts this method.
    pub fn allows(&self, method: AuthMethod) -> bool {
        self.0.contains(&method)
    }

    /// Returns a value that accepts `method` as well.
    #[must_use]
    pub fn with(&self, method: AuthMethod) -> RequireAuth {
        let mut methods = self.0.clone();
        methods.insert(method);
        RequireAuth(methods)
    }
}

impl fmt::Display for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|method| method.as_str()).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_sent_to_a_server_with_an_unverified_certificate() {
        for sslmode in [SslMode::Disable, SslMode::Prefer, SslMode::Require] {
            let usual = RequireAuth::usual(sslmode);
            for method in [AuthMethod::Password, AuthMethod::Md5] {
                assert!(!usual.allows(method), "{}", sslmode.as_str());
            }
            assert!(usual.allows(AuthMethod::ScramSha256) && usual.allows(AuthMethod::None));
        }
        assert!(RequireAuth::usual(SslMode::VerifyFull).allows(AuthMethod::Password));
    }
}
