//! The words that stand for a choice: roles, TLS modes, policies.

use super::problem::{Problem, Shown};
use super::suggest::nearest;
use super::{OnPromotion, PoolerDown, SplitBrain, SslMode, Stick, Verify, Vocabulary, Weight};
use crate::claim::Role;

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
