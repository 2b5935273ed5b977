//! All rules.

pub mod allow;
mod haproxy;
mod hba;
mod hba_login;
mod pgsteer;
pub mod template;

use super::rule::Rule;

/// Returns every rule, by subject.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let others = [&template::TEMPLATE_NOT_RENDERED, &allow::ALLOW_WRONG];
    haproxy::RULES.iter().chain(hba::RULES).chain(pgsteer::RULES).copied().chain(others)
}

/// Returns the rule with this name.
pub fn find(id: &str) -> Option<&'static Rule> {
    rules().find(|rule| rule.id == id)
}
