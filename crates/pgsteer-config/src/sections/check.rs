//! `[check]`: the check login of the tether.

use std::collections::BTreeSet;
use std::path::PathBuf;

use pgsteer_core::settings::defaults;
use pgsteer_core::settings::{AuthMethod, CheckConfig, RequireAuth, SslMode};

use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::Given;
use crate::key::{Command, Flag, Key, SectionKeys};
use crate::kinds::{Choice, Text};
use crate::plain;
use crate::problem::{Problem, Shown};
use crate::range::Seconds;
use crate::suggest::nearest;
use crate::written::Section;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "A login that needs no rights: CREATE ROLE pgcheck LOGIN. With it pgsteer detects a \
           failover within milliseconds, and measures the lag of replicas; without it Patroni alone \
           decides, which is a little slower. A section that is there needs `user`.",
    keys: &[&USER, &PASSWORD_FILE, &SSLMODE, &CA_FILE, &REQUIRE_AUTH, &DBNAME, &TIMEOUT],
    at_restart: false,
};

/// The name of the section.
pub const SECTION: &str = "check";

/// The user.
pub static USER: Key<Text<String>> = Key::new(SECTION, "user", Text::new("name", plain::login))
    .example("\"pgcheck\"")
    .help("PostgreSQL user.")
    .flags(&[Flag::new(Command::Both, "--check-user", "NAME").help(
        "PostgreSQL user for checks; it needs no rights [default: no checks, Patroni alone decides]",
    )]);

static PASSWORD_FILE: Key<Text<PathBuf>> =
    Key::new(SECTION, "password_file", Text::<PathBuf>::file())
        .example("\"/etc/pgsteer/password\"")
        .help("File that holds the password.")
        .flags(&[Flag::new(Command::Both, "--check-password-file", "FILE")
            .help("File that holds the password for checks [default: no password]")]);

static SSLMODE: Key<Choice<SslMode>> = Key::new(
    SECTION,
    "sslmode",
    Choice {
        others: &[("allow", "prefer"), ("full", "verify-full"), ("ca", "verify-ca")],
        ..Choice::new(
            SslMode::Prefer,
            &[
                SslMode::Disable,
                SslMode::Prefer,
                SslMode::Require,
                SslMode::VerifyCa,
                SslMode::VerifyFull,
            ],
            SslMode::as_str,
        )
    },
)
.example("\"verify-full\"")
.help("How TLS is requested, as in libpq.");

static CA_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "ca_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/postgres-ca.pem\"")
    .unset("the authorities of the system")
    .help("The authorities to trust, PEM, for sslmode `verify-ca` and `verify-full`.");

static REQUIRE_AUTH: Key<Text<RequireAuth>> =
    Key::new(SECTION, "require_auth", Text::new("list of methods", require_auth))
        .example("\"scram-sha-256,none\"")
        .unset("`scram-sha-256,none`; all methods with sslmode `verify-ca` or `verify-full`")
        .help(
            "How the server may authenticate the login, as libpq's require_auth: a list of \
             `password` (in clear), `md5`, `scram-sha-256` and `none` (`trust`), or of those that \
             may not be used, each with a ! in front. The default gives no server the password. It \
             holds for PgBouncer as well.",
        );

static DBNAME: Key<Text<String>> =
    Key::new(SECTION, "dbname", Text::new("name", plain::login).or("postgres"))
        .example("\"postgres\"")
        .help("Database of the login.")
        .flags(&[Flag::new(Command::Both, "--check-dbname", "NAME")
            .help("Database for checks [default: postgres]")]);

/// The time limit of one answer of PostgreSQL.
pub static TIMEOUT: Key<Seconds> = Key::new(
    SECTION,
    "timeout_seconds",
    Seconds::within(100, 60_000).or_default(defaults::CHECK_TIMEOUT),
)
.help("The time that PostgreSQL, or PgBouncer, has for one answer. After it the member gets no new sessions; a late answer still counts if it comes within five seconds, or within this time if that is longer.");

/// Returns the settings of the section; none if an error makes them unknown.
pub fn finish(given: &Given<Section>, errors: &mut ConfigErrors) -> Option<CheckConfig> {
    let keys = &given.value;
    let (user, ca_file, mode) = (keys.get(&USER), keys.get(&CA_FILE), keys.get(&SSLMODE));
    let is_wrong = mode.is_wrong();
    let sslmode = mode.or(SslMode::Prefer);
    if let (Some(ca), false) = (ca_file.given(), is_wrong)
        && !matches!(sslmode, SslMode::VerifyCa | SslMode::VerifyFull)
    {
        errors.push(ca.origin.clone(), Conflict::CaFileUnused(sslmode));
    }
    if user.is_absent() {
        let example = "user = \"pgcheck\", or --check-user pgcheck";
        errors.push(given.origin.clone(), Conflict::Missing { key: "user", example });
    }
    Some(CheckConfig {
        user: user.value()?,
        dbname: keys.or_usual(&DBNAME),
        password_file: keys.get(&PASSWORD_FILE).value(),
        sslmode,
        require_auth: keys.get(&REQUIRE_AUTH).or(RequireAuth::usual(sslmode)),
        ca_file: ca_file.value(),
        timeout: keys.or_usual(&TIMEOUT),
    })
}

/// Parses a list of methods, or a list with `!` before each method that is excluded (PostgreSQL
/// documentation, "Parameter Key Words", `require_auth`).
///
/// # Errors
/// A word that is not a method, a list that mixes both forms, or one that leaves no supported
/// method.
pub fn require_auth(text: &str) -> Result<RequireAuth, Problem> {
    /// Methods of libpq that pgsteer does not support.
    const OTHERS: [&str; 2] = ["gss", "sspi"];
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let are_negated = words.iter().filter(|word| word.starts_with('!')).count();
    if are_negated != 0 && are_negated != words.len() {
        return Err(Problem::AuthMixed(Shown::of(text)));
    }
    let mut named = BTreeSet::new();
    for word in words.iter().map(|word| word.trim_start_matches('!')) {
        match AuthMethod::ALL.iter().find(|method| method.as_str() == word) {
            Some(method) => _ = named.insert(*method),
            None if OTHERS.contains(&word) => {}
            None => {
                let words: Vec<&str> = AuthMethod::ALL.map(AuthMethod::as_str).into();
                return Err(Problem::UnknownWord {
                    found: Shown::of(word),
                    near: nearest(word, &words),
                    words,
                });
            }
        }
    }
    if are_negated != 0 {
        let all = AuthMethod::ALL.into_iter();
        named = all.filter(|method| !named.contains(method)).collect();
    }
    RequireAuth::of(named).ok_or_else(|| Problem::AuthUnsupported(Shown::of(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_libpq_reads_them() {
        for (text, methods) in [
            ("scram-sha-256", "scram-sha-256"),
            ("md5, scram-sha-256", "md5,scram-sha-256"),
            ("gss,none", "none"),
            ("!password,!md5", "scram-sha-256,none"),
            ("!none", "password,md5,scram-sha-256"),
        ] {
            assert_eq!(require_auth(text).unwrap().to_string(), methods, "{text}");
        }
        for text in
            ["", "scram", "password,!md5", "gss", "gss,sspi", "!password,!md5,!none,!scram-sha-256"]
        {
            assert!(require_auth(text).is_err(), "{text}");
        }
    }
}
