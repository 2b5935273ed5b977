//! Comments that allow a finding: `# pgsteer-lint: allow(rule-id) reason`, at the end of its line
//! or on the line before.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::find;
use crate::lint::location::Location;
use crate::lint::rule::{Finding, Findings, Look, rule};

const MARK: &str = "pgsteer-lint:";

rule! {
    /// A comment that allows no finding.
    ALLOW_WRONG = "allow-wrong", Warning, Look::Text,
    title: "a pgsteer-lint comment that allows nothing",
    costs: "The comment suggests a decision that has no effect.",
    remedy: "Write `# pgsteer-lint: allow(rule-id) reason` on the line of the finding or on the line before it; remove it if there is no finding.",
}

/// One comment that names one rule.
#[derive(Debug)]
struct Allowance {
    rule: &'static str,
    written_at: usize,
    was_used: Cell<bool>,
}

/// The comments of a file.
#[derive(Debug, Default)]
pub struct Allowances {
    /// By the line that they apply to.
    by_line: BTreeMap<usize, Vec<Allowance>>,
    /// Invalid comments.
    wrong: Vec<(usize, String)>,
}

impl Allowances {
    /// Reads the comments of a text.
    pub fn read(text: &str) -> Allowances {
        let mut allowances = Allowances::default();
        let mut waiting: Vec<(usize, &str)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let comment = comment(line);
            let before = comment.map_or(line, |(before, _)| before);
            waiting.extend(comment.map(|(_, said)| (number, said)));
            // A comment on its own line applies to the next line with content.
            if !matches!(before.trim_start().chars().next(), None | Some('#')) {
                for (written_at, said) in waiting.drain(..) {
                    allowances.note(number, written_at, said);
                }
            }
        }
        waiting.into_iter().for_each(|(written_at, said)| allowances.note(0, written_at, said));
        allowances
    }

    fn note(&mut self, line: usize, written_at: usize, said: &str) {
        let inner = said.trim().strip_prefix("allow(").and_then(|rest| rest.split_once(')'));
        let Some((names, reason)) = inner else {
            self.wrong.push((written_at, "the comment is not `allow(rule-id) reason`".to_owned()));
            return;
        };
        if reason.trim().is_empty() {
            self.wrong.push((written_at, "it has no reason".to_owned()));
            return;
        }
        for name in names.split(',').map(str::trim) {
            match find(name) {
                Some(rule) => self.by_line.entry(line).or_default().push(Allowance {
                    rule: rule.id,
                    written_at,
                    was_used: Cell::new(false),
                }),
                None => {
                    let name = crate::lint::word_shown(name);
                    self.wrong.push((written_at, format!("there is no rule `{name}`")));
                }
            }
        }
    }

    /// Returns true if the finding is allowed, and marks the comment as used.
    pub fn allow(&self, finding: &Finding) -> bool {
        let on_line = self.by_line.get(&finding.place.line);
        let allowance = on_line.and_then(|all| all.iter().find(|it| it.rule == finding.rule.id));
        if let Some(allowance) = allowance {
            allowance.was_used.set(true);
        }
        allowance.is_some()
    }

    /// Returns findings for invalid comments and for those that were not used.
    pub fn wrong(self) -> Vec<Finding> {
        let unused = self.by_line.into_values().flatten().filter(|it| !it.was_used.get());
        let unused = unused.map(|it| (it.written_at, format!("`{}` has no finding here", it.rule)));
        let mut findings = Findings::of(&ALLOW_WRONG);
        for (line, message) in self.wrong.into_iter().chain(unused) {
            findings.add(Location::line(line), message);
        }
        findings.into_all()
    }
}

/// Returns the text before such a comment in a line, and the comment's text.
fn comment(line: &str) -> Option<(&str, &str)> {
    line.match_indices(MARK).find_map(|(at, _)| {
        let (before, said) = line.split_at(at);
        Some((before.trim_end().strip_suffix('#')?, said.strip_prefix(MARK)?))
    })
}
