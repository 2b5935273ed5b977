//! The check login of a pgsteer.toml.

use pgsteer_core::settings::{CheckConfig, RequireAuth, SslMode};

/// The check login, as `[check]` of pgsteer.toml describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckLogin {
    /// The name of the user.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// The methods that `require_auth` allows.
    pub accepted: RequireAuth,
    /// A password is configured.
    pub has_password: bool,
    /// TLS.
    pub sslmode: SslMode,
}

impl From<&CheckConfig> for CheckLogin {
    fn from(check: &CheckConfig) -> CheckLogin {
        CheckLogin {
            user: check.user.clone(),
            dbname: check.dbname.clone(),
            accepted: check.require_auth.clone(),
            has_password: check.password_file.is_some(),
            sslmode: check.sslmode,
        }
    }
}
