//! The words that stand for a choice: roles, TLS modes, policies.

use std::collections::BTreeSet;

use pgsteer_core::claim::Role;
use pgsteer_core::settings::{
    AuthMethod, OnPromotion, PoolerDown, RequireAuth, SplitBrain, SslMode, Stick, Verify,
    Vocabulary, Weight,
};

use crate::problem::{Problem, Shown};
use crate::suggest::nearest;

/// Reads the role that a service wants.
///
/// # Errors
/// Any other word than `primary`, `replica` and `standby_leader`. Old words are refused
/// with the new one as the remedy, so that files speak one language.
pub fn role(text: &str) -> Result<Role, Problem> {
    let roles = [Role::Primary, Role::Replica, Role::StandbyLeader];
    let old = [
        ("master", "primary"),
        ("leader", "primary"),
        ("slave", "replica"),
        ("standby", "replica"),
        ("secondary", "replica"),
    ];
    choose(text, &roles, Role::as_str, &old)
}

/// Reads how TLS is asked for.
///
/// # Errors
/// Any other word than `disable`, `prefer`, `require`, `verify-ca` and `verify-full`.
pub fn sslmode(text: &str) -> Result<SslMode, Problem> {
    let modes = [
        SslMode::Disable,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ];
    let others = [("allow", "prefer"), ("full", "verify-full"), ("ca", "verify-ca")];
    choose(text, &modes, SslMode::as_str, &others)
}

/// Reads how far certificates are verified.
///
/// # Errors
/// Any other word than `full`, `ca` and `none`.
pub fn verify(text: &str) -> Result<Verify, Problem> {
    let others = [
        ("verify-full", "full"),
        ("required", "full"),
        ("verify-ca", "ca"),
        ("require", "none"),
        ("disable", "none"),
    ];
    choose(text, &[Verify::Full, Verify::Ca, Verify::None], Verify::as_str, &others)
}

/// Reads what to do in a split brain.
///
/// # Errors
/// Any other word than `block` and `highest_timeline`.
pub fn split_brain(text: &str) -> Result<SplitBrain, Problem> {
    let policies = [SplitBrain::Block, SplitBrain::HighestTimeline];
    choose(text, &policies, SplitBrain::as_str, &[])
}

/// Reads what becomes of new clients while a pooler is down.
///
/// # Errors
/// Any other word than `shut` and `bypass`.
pub fn pooler_down(text: &str) -> Result<PoolerDown, Problem> {
    choose(text, &[PoolerDown::Shut, PoolerDown::Bypass], PoolerDown::as_str, &[])
}

/// Reads which connections of a service go to one member.
///
/// # Errors
/// Any other word than `none` and `address`.
pub fn stick(text: &str) -> Result<Stick, Problem> {
    choose(text, &[Stick::None, Stick::Address], Stick::as_str, &[("source", "address")])
}

/// Reads what becomes of the sessions at a replica that is promoted.
///
/// # Errors
/// Any other word than `keep` and `end`.
pub fn on_promotion(text: &str) -> Result<OnPromotion, Problem> {
    choose(text, &[OnPromotion::Keep, OnPromotion::End], OnPromotion::as_str, &[])
}

/// Reads whether the primary serves reads while no replica is open.
///
/// # Errors
/// Any other word than `primary` and `none`.
pub fn fallback(text: &str) -> Result<bool, Problem> {
    let word = |primary| if primary { "primary" } else { "none" };
    choose(text, &[true, false], word, &[("master", "primary")])
}

/// Reads the agent's words for yes and no.
///
/// # Errors
/// Any other word than `health` and `admin`.
pub fn vocabulary(text: &str) -> Result<Vocabulary, Problem> {
    let all = [Vocabulary::Health, Vocabulary::Admin];
    choose(text, &all, Vocabulary::as_str, &[("up", "health"), ("maint", "admin")])
}

/// Reads what decides on the weight that the agent gives.
///
/// # Errors
/// Any other word than `none`, `lag` and `sessions`.
pub fn weight(text: &str) -> Result<Weight, Problem> {
    choose(text, &[Weight::Unsaid, Weight::Lag, Weight::Sessions], Weight::as_str, &[])
}

/// Reads a list of methods, or of methods with `!` in front of each that are not accepted
/// (PostgreSQL documentation, "Parameter Key Words", `require_auth`).
///
/// # Errors
/// A word that is no method, a list that mixes both, or one that leaves no method to pgsteer.
pub fn require_auth(text: &str) -> Result<RequireAuth, Problem> {
    /// Methods of libpq that pgsteer does not have.
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

fn choose<T: Copy>(
    text: &str,
    all: &[T],
    word: impl Fn(T) -> &'static str,
    aliases: &[(&str, &'static str)],
) -> Result<T, Problem> {
    if let Some(found) = all.iter().find(|choice| word(**choice) == text) {
        return Ok(*found);
    }
    let words: Vec<&'static str> = all.iter().map(|choice| word(*choice)).collect();
    let alias = aliases.iter().find(|(alias, _)| *alias == text);
    Err(Problem::UnknownWord {
        found: Shown::of(text),
        near: alias.map(|(_, meant)| *meant).or_else(|| nearest(text, &words)),
        words,
    })
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

    #[test]
    fn every_word_reads_back() {
        assert_eq!(role("standby_leader").unwrap(), Role::StandbyLeader);
        assert_eq!(sslmode("verify-full").unwrap(), SslMode::VerifyFull);
        assert_eq!(sslmode("verify-ca").unwrap(), SslMode::VerifyCa);
        assert_eq!(verify("ca").unwrap(), Verify::Ca);
        assert_eq!(split_brain("highest_timeline").unwrap(), SplitBrain::HighestTimeline);
        assert_eq!(pooler_down("bypass").unwrap(), PoolerDown::Bypass);
        assert_eq!(stick("address").unwrap(), Stick::Address);
        assert_eq!(on_promotion("end").unwrap(), OnPromotion::End);
        assert!(fallback("primary").unwrap());
        assert!(!fallback("none").unwrap());
    }

    #[test]
    fn old_words_are_refused_with_the_new_one() {
        for (old, new) in [("master", "primary"), ("slave", "replica")] {
            let problem = role(old).unwrap_err();
            assert_eq!(problem.remedy().unwrap(), format!("did you mean `{new}`?"));
        }
        let problem = sslmode("allow").unwrap_err();
        assert_eq!(problem.remedy().unwrap(), "did you mean `prefer`?");
        let problem = verify("verify-full").unwrap_err();
        assert_eq!(problem.remedy().unwrap(), "did you mean `full`?");
    }
}
