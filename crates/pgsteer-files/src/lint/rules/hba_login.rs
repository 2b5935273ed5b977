//! Tests whether pg_hba.conf admits the check login of a pgsteer.toml, if both files are given.

use pgsteer_core::settings::{AuthMethod, SslMode};

use crate::lint::hba::cover::{covers_origin, is_loopback};
use crate::lint::hba::entry::Entry;
use crate::lint::hba::fields::Item;
use crate::lint::hba::{CheckLogin, Hba};
use crate::lint::location::{Location, Severity};
use crate::lint::rule::Findings;
use crate::lint::word_shown;

/// Whether something holds, as far as the file shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    No,
    Maybe,
    Yes,
}

/// The result of the login at a line that matches it.
enum Outcome {
    /// The login is admitted.
    LetIn,
    /// The file does not show the result.
    Unclear,
    /// The login is refused, for this reason.
    Refused(String),
}

/// The rule `hba-check-login`.
pub fn check_login(hba: &Hba, findings: &mut Findings) {
    let Some(login) = &hba.login else { return };
    // A file with a line that PostgreSQL refuses is not in force, and another file may have the line.
    if hba.has_includes || !hba.refused.is_empty() {
        return;
    }
    let lines = login.lines(hba);
    let remote = || lines.iter().filter(|(entry, _)| !is_loopback(&entry.from));
    let is_refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_));
    let named = login.shown();
    if remote().any(|(_, outcome)| !is_refused(outcome)) {
        // Another line may be for the machine where pgsteer runs.
        for (entry, outcome) in remote().filter(|(entry, _)| entry.method != "reject") {
            let is_its_own = entry.users.iter().any(|user| user.text == login.user);
            if let Outcome::Refused(why) = outcome
                && is_its_own
            {
                findings.add_as(Severity::Warning, entry.method_place, format!("{named} {why}"));
            }
        }
        return;
    }
    match (remote().next(), lines.iter().find(|(_, outcome)| !is_refused(outcome))) {
        (Some((entry, Outcome::Refused(why))), _) => {
            findings.add(entry.method_place, format!("{named} {why}"));
        }
        (_, Some((entry, _))) => {
            let message = format!("{named} is admitted from this machine only");
            findings.add_as(Severity::Warning, entry.place, message);
        }
        _ => findings.add(Location::line(1), format!("no line matches {named}")),
    }
}

impl CheckLogin {
    fn shown(&self) -> String {
        let [user, dbname] = [&self.user, &self.dbname].map(|name| word_shown(name));
        format!("the check login `{user}` to the database `{dbname}`")
    }

    /// The lines that decide about the login, with what becomes of it there.
    fn lines<'a>(&self, hba: &'a Hba) -> Vec<(&'a Entry, Outcome)> {
        let mut certain: Vec<&Entry> = Vec::new();
        let mut lines = Vec::new();
        for entry in &hba.entries {
            let is_for_it = self.fits(entry);
            if is_for_it == Holds::No || certain.iter().any(|earlier| covers_origin(earlier, entry))
            {
                continue;
            }
            if is_for_it == Holds::Yes {
                certain.push(entry);
                lines.push((entry, self.outcome(entry)));
            } else {
                lines.push((entry, Outcome::Unclear));
            }
        }
        lines
    }

    fn fits(&self, entry: &Entry) -> Holds {
        let has_tls = !matches!(self.sslmode, SslMode::Disable);
        let is_kind = match entry.kind.as_str() {
            "host" | "hostnogssenc" => true,
            "hostssl" => has_tls,
            "hostnossl" => matches!(self.sslmode, SslMode::Disable | SslMode::Prefer),
            // A socket, or encryption by GSSAPI.
            _ => false,
        };
        if !is_kind {
            return Holds::No;
        }
        let is_user = strongest(&entry.users, |item| self.is_user(item));
        is_user.min(strongest(&entry.databases, |item| self.is_database(item)))
    }

    fn is_user(&self, item: &Item) -> Holds {
        match item.text.as_str() {
            _ if item.is("all") => Holds::Yes,
            text if text == self.user => Holds::Yes,
            text if !item.is_quoted && text.starts_with(['+', '/', '@']) => Holds::Maybe,
            _ => Holds::No,
        }
    }

    fn is_database(&self, item: &Item) -> Holds {
        match item.text.as_str() {
            _ if item.is("all") => Holds::Yes,
            _ if item.is("replication") => Holds::No,
            _ if item.is("sameuser") && self.user == self.dbname => Holds::Yes,
            _ if item.is("samerole") || item.is("samegroup") => Holds::Maybe,
            text if text == self.dbname => Holds::Yes,
            text if !item.is_quoted && text.starts_with(['/', '@']) => Holds::Maybe,
            _ => Holds::No,
        }
    }

    fn outcome(&self, entry: &Entry) -> Outcome {
        if entry.has_certificate || entry.method == "cert" {
            let why = "needs a client certificate, and [check] has none";
            return Outcome::Refused(why.to_owned());
        }
        match entry.method.as_str() {
            "reject" => Outcome::Refused("is rejected".to_owned()),
            "trust" => self.by(AuthMethod::None, "is admitted without a password"),
            "scram-sha-256" => self.by(AuthMethod::ScramSha256, "needs `scram-sha-256`"),
            // PostgreSQL uses SCRAM if the password is stored so (manual, 20.5).
            "md5" if self.accepts(AuthMethod::ScramSha256) && !self.accepts(AuthMethod::Md5) => {
                match self.has_password {
                    true => Outcome::Unclear,
                    false => self.by(AuthMethod::ScramSha256, "needs a password"),
                }
            }
            "md5" => self.by(AuthMethod::Md5, "needs `md5`"),
            "password" | "ldap" | "pam" | "radius" | "bsd" => {
                self.by(AuthMethod::Password, "has to send its password in clear")
            }
            // The machine of pgsteer decides.
            "ident" => Outcome::Unclear,
            other => Outcome::Refused(format!("needs `{other}`, which pgsteer does not support")),
        }
    }

    fn accepts(&self, method: AuthMethod) -> bool {
        self.accepted.allows(method)
    }

    fn by(&self, method: AuthMethod, what: &str) -> Outcome {
        if !self.accepts(method) {
            let accepted = &self.accepted;
            Outcome::Refused(format!("{what}, and require_auth of [check] is `{accepted}`"))
        } else if method != AuthMethod::None && !self.has_password {
            Outcome::Refused(format!("{what}, and [check] has no password_file"))
        } else {
            Outcome::LetIn
        }
    }
}

fn strongest(items: &[Item], holds: impl Fn(&Item) -> Holds) -> Holds {
    items.iter().map(holds).max().unwrap_or(Holds::No)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::rules::hba::HBA_CHECK_LOGIN;

    /// The findings, with the first letter of their severity and their line.
    fn found(check: &str, hba: &str) -> String {
        let toml = format!(
            "[patroni]\nurls = ['http://10.0.0.11:8008']\n[check]\nuser = 'pgcheck'\n{check}"
        );
        let mut hba = Hba::read(hba, None);
        hba.login = crate::lint::pgsteer::check_login(&toml);
        assert!(hba.login.is_some(), "{toml}");
        let mut findings = Findings::of(&HBA_CHECK_LOGIN);
        check_login(&hba, &mut findings);
        let shown = |it: crate::lint::rule::Finding| {
            let message = it.message.replace("the check login `pgcheck` to the database ", "");
            format!("{} {}: {message}", &it.severity.as_str()[..1], it.place.line)
        };
        findings.into_all().into_iter().map(shown).collect::<Vec<_>>().join("; ")
    }

    const PASSWORD: &str = "password_file = '/etc/p'\n";

    #[test]
    fn a_login_that_gets_in_is_no_finding() {
        for (check, hba) in [
            (PASSWORD, "host all all 10.0.0.0/8 scram-sha-256"),
            (PASSWORD, "host all all 10.0.0.0/8 md5"),
            ("", "host postgres pgcheck 10.0.0.21/32 trust\nhost all all all md5"),
            (PASSWORD, "host all all 10.0.0.66/32 reject\nhost all all 10.0.0.0/8 scram-sha-256"),
            (PASSWORD, "host all +monitoring 10.0.0.0/8 scram-sha-256"),
            (PASSWORD, "include more.conf"),
            (PASSWORD, "hots all all all trust"),
            ("dbname = 'pgcheck'\n", "host sameuser all samenet trust"),
            ("sslmode = 'verify-full'\npassword_file = '/etc/p'\n", "hostssl all all all md5"),
            ("", "host all all 10.0.0.0/8 ident"),
        ] {
            assert_eq!(found(check, hba), "", "{hba}");
        }
    }

    #[test]
    fn a_refused_check_login_has_a_reason() {
        let no_line = "e 1: no line matches `postgres`";
        assert_eq!(found(PASSWORD, "local all all peer\nhost app all all md5"), no_line);
        assert_eq!(found(PASSWORD, "host replication all all scram-sha-256"), no_line);
        assert_eq!(found(PASSWORD, "host all \"all\" all scram-sha-256"), no_line);
        assert_eq!(found("sslmode = 'disable'\n", "hostssl all all all trust"), no_line);
        assert_eq!(found("sslmode = 'require'\n", "hostnossl all all all trust"), no_line);
        assert_eq!(
            found("", "host all all 10.0.0.0/8 scram-sha-256"),
            "e 1: `postgres` needs `scram-sha-256`, and [check] has no password_file"
        );
        assert_eq!(
            found(PASSWORD, "host all all 10.0.0.0/8 ldap ldapserver=x ldapprefix=y"),
            "e 1: `postgres` has to send its password in clear, and require_auth of [check] is \
             `scram-sha-256,none`"
        );
        assert_eq!(
            found("require_auth = 'scram-sha-256'\n", "host all all 10.0.0.0/8 trust"),
            "e 1: `postgres` is admitted without a password, and require_auth of [check] is \
             `scram-sha-256`"
        );
        assert_eq!(
            found(PASSWORD, "host all all all reject\nhost all pgcheck 10.0.0.21/32 trust"),
            "e 1: `postgres` is rejected"
        );
        assert_eq!(
            found(PASSWORD, "hostssl all all all cert"),
            "e 1: `postgres` needs a client certificate, and [check] has none"
        );
    }

    #[test]
    fn a_setting_that_may_be_intended_is_a_warning() {
        assert_eq!(
            found(PASSWORD, "host all all 127.0.0.1/32 scram-sha-256"),
            "w 1: `postgres` is admitted from this machine only"
        );
        let lines =
            "host all all 10.0.0.21/32 scram-sha-256\nhost all pgcheck 10.0.0.22/32 password";
        assert!(found(PASSWORD, lines).starts_with("w 2: `postgres` has to send its password"));
        let lines = "host all all 10.0.0.21/32 scram-sha-256\nhost all all 10.0.0.22/32 password";
        assert_eq!(found(PASSWORD, lines), "", "that line is for others");
    }
}
