//! Lint: reads a haproxy.cfg, pg_hba.conf or pgsteer.toml, and reports its faults.
//!
//! Text in, findings out. A [`rule::Rule`] has a name, a severity, its effect, a remedy, and a page
//! in `docs/lint`. It reports only what the file alone proves: it does not guess what depends on
//! the environment or on another file.

pub mod haproxy;
pub mod hba;
pub mod kind;
pub mod location;
pub mod pgsteer;
pub mod rule;
pub mod rules;
pub mod show;

use std::borrow::Cow;
use std::collections::BTreeMap;

use thiserror::Error;

use self::haproxy::Haproxy;
use self::haproxy::detection::{self, Row};
use self::haproxy::model::Model;
use self::haproxy::sections::{self, File};
pub use self::hba::CheckLogin;
use self::hba::Hba;
pub use self::kind::Kind;
use self::location::{Location, Severity};
use self::pgsteer::Pgsteer;
pub use self::pgsteer::check_login;
use self::rule::{Finding, Findings, Look};
use self::rules::{allow, rules, template};
use crate::render::HaproxyVersion;

/// The maximum size of a file. No file of these kinds is larger.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// The maximum number of findings of one rule that are shown for one file.
pub const FINDINGS_MAX: usize = 100;

/// Options of lint besides the file.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The HAProxy that reads the file.
    pub haproxy: HaproxyVersion,
    /// The major version of PostgreSQL, if it is known.
    pub postgres: Option<u16>,
    /// `max_connections` of every member, if it is known.
    pub max_connections: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options { haproxy: HaproxyVersion::OLDEST, postgres: None, max_connections: None }
    }
}

/// The settings in other files of the same cluster that rules need.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The check login of the pgsteer.toml.
    pub check_login: Option<CheckLogin>,
}

/// The text of a file, with its name for messages about other files.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The name of the file.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
}

/// The reason why a file cannot be linted at all.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unreadable {
    /// Larger than [`FILE_BYTES_MAX`].
    #[error("is larger than 4 MiB")]
    TooLarge,
    /// Not text.
    #[error("is not text: line {line} contains the byte {byte:#04x}")]
    NoText {
        /// The line, from 1.
        line: usize,
        /// A byte that text cannot contain.
        byte: u8,
    },
    /// It is empty.
    #[error("contains only comments and empty lines, or nothing")]
    Empty,
    /// Its kind is unknown.
    #[error(
        "is none of haproxy.cfg, pg_hba.conf and pgsteer.toml by its name and its text; --kind sets the kind"
    )]
    NoKind,
    /// It has no section of HAProxy.
    #[error("has none of the sections global, defaults, frontend, backend and listen")]
    NoSection,
    /// Most lines are not lines of pg_hba.conf.
    #[error("has few lines that begin as in pg_hba.conf (local, host, hostssl, ...)")]
    NoLines,
}

/// The result for one file.
#[derive(Clone, Debug)]
pub struct Report {
    /// The kind of the file.
    pub kind: Kind,
    /// The findings, ordered by place.
    pub findings: Vec<Finding>,
    /// The number of further findings that a comment in the file allows.
    pub allowed: usize,
    /// The number of further findings of rules with more than [`FINDINGS_MAX`] findings.
    pub left_out: usize,
    /// HAProxy's detection times, by server line.
    pub detection: Vec<Row>,
    /// It is a piece of a configuration, so nothing is reported as missing that another file may
    /// have.
    pub is_piece: bool,
}

impl Report {
    /// Returns the number of findings with this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Decodes the text of a file. Bytes that are not UTF-8 are replaced, since comments may be in
/// Latin-1.
///
/// # Errors
/// The file is not text, or is too large.
pub fn text(bytes: &[u8]) -> Result<Cow<'_, str>, Unreadable> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Unreadable::TooLarge);
    }
    let is_none = |byte: &u8| *byte < b' ' && !b"\t\n\r\x0c".contains(byte);
    match bytes.iter().position(is_none) {
        None => Ok(String::from_utf8_lossy(bytes)),
        Some(at) => {
            let before = bytes.get(..at).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(Unreadable::NoText { line, byte: bytes.get(at).copied().unwrap_or_default() })
        }
    }
}

/// Lints the text of a file. Its name or the text determines its kind.
///
/// # Errors
/// The text is recognizably of no supported kind.
pub fn lint_named(name: &str, text: &str, options: &Options) -> Result<Report, Unreadable> {
    match Kind::of(name, text) {
        _ if says_nothing(text) => Err(Unreadable::Empty),
        Some(kind) => lint(kind, text, options),
        None => Err(Unreadable::NoKind),
    }
}

fn says_nothing(text: &str) -> bool {
    let is_comment = |line: &str| matches!(line.trim_start().chars().next(), None | Some('#'));
    text.lines().all(is_comment)
}

/// Lints the text of a file of this kind.
///
/// # Errors
/// The text is recognizably not of this kind.
pub fn lint(kind: Kind, text: &str, options: &Options) -> Result<Report, Unreadable> {
    lint_beside(kind, text, options, &Beside::default())
}

/// Judges the text of a file, which is of this kind, with what is known from other files.
///
/// # Errors
/// A text that does not look like a file of this kind.
pub fn lint_beside(
    kind: Kind,
    text: &str,
    options: &Options,
    beside: &Beside,
) -> Result<Report, Unreadable> {
    if says_nothing(text) {
        return Err(Unreadable::Empty);
    }
    if let Some(findings) = template::judge(text) {
        return Ok(finish(kind, text, findings.into()));
    }
    let judged = match kind {
        Kind::Haproxy => {
            let source = Source { name: "", text };
            judge_haproxy(&[source], options)?.pop().ok_or(Unreadable::NoSection)?
        }
        Kind::PgHba => {
            let mut hba = Hba::read(text, options.postgres);
            hba.login = beside.check_login.clone();
            if hba.is_strange() {
                return Err(Unreadable::NoLines);
            }
            looked(&Input::PgHba(&hba)).into()
        }
        Kind::Pgsteer => looked(&Input::Pgsteer(&Pgsteer::read(text))).into(),
    };
    Ok(finish(kind, text, judged))
}

/// Lints several files of HAProxy as one configuration, as HAProxy reads them with several `-f`, in
/// this order. Returns a report for each file.
///
/// # Errors
/// None of the texts has a section.
pub fn lint_joined(sources: &[Source<'_>], options: &Options) -> Result<Vec<Report>, Unreadable> {
    let templates: Vec<_> = sources.iter().map(|source| template::judge(source.text)).collect();
    if templates.iter().any(Option::is_some) {
        let each = sources.iter().zip(templates).map(|(source, findings)| {
            let findings = findings.unwrap_or_default();
            finish(Kind::Haproxy, source.text, findings.into())
        });
        return Ok(each.collect());
    }
    let judged = judge_haproxy(sources, options)?;
    let each = sources.iter().zip(judged);
    Ok(each.map(|(source, judged)| finish(Kind::Haproxy, source.text, judged)).collect())
}

/// Builds the report for a text: findings that a comment allows are counted and not shown.
fn finish(kind: Kind, text: &str, judged: Judged) -> Report {
    let Judged { mut findings, detection, is_piece } = judged;
    let allowances = allow::Allowances::read(text);
    let all = findings.len();
    findings.retain(|finding| !allowances.allow(finding));
    let allowed = all - findings.len();
    findings.extend(allowances.wrong());
    findings.sort_by_key(|finding| (finding.place, finding.severity, finding.rule.id));
    // A finding about a line of `defaults` appears once, not for each proxy that inherits it.
    findings.dedup_by_key(|finding| (finding.place, finding.rule.id));
    let left_out = leave_out(&mut findings);
    Report { kind, findings, allowed, left_out, detection, is_piece }
}

/// The findings before the comments in the file are applied.
struct Judged {
    findings: Vec<Finding>,
    detection: Vec<Row>,
    is_piece: bool,
}

impl From<Vec<Finding>> for Judged {
    fn from(findings: Vec<Finding>) -> Judged {
        Judged { findings, detection: Vec::new(), is_piece: false }
    }
}

/// Keeps the first [`FINDINGS_MAX`] findings of each rule, and returns the number of the others.
fn leave_out(findings: &mut Vec<Finding>) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let all = findings.len();
    findings.retain(|finding| {
        let count = counts.entry(finding.rule.id).or_default();
        *count += 1;
        *count <= FINDINGS_MAX
    });
    all - findings.len()
}

/// A file as its rules read it.
enum Input<'a> {
    Haproxy(&'a Haproxy<'a>),
    PgHba(&'a Hba),
    Pgsteer(&'a Pgsteer),
}

/// Returns the findings of all rules for this kind of input.
fn looked(input: &Input<'_>) -> Vec<Finding> {
    let found = |rule| {
        let mut findings = Findings::of(rule);
        match (&rule.look, input) {
            (Look::Haproxy(look), Input::Haproxy(haproxy)) => look(haproxy, &mut findings),
            (Look::PgHba(look), Input::PgHba(hba)) => look(hba, &mut findings),
            (Look::Pgsteer(look), Input::Pgsteer(pgsteer)) => look(pgsteer, &mut findings),
            _ => {}
        }
        findings.into_all()
    };
    rules().flat_map(found).collect()
}

/// Lints the files of one configuration, and computes HAProxy's detection times. The result has an
/// entry for each file.
fn judge_haproxy(sources: &[Source<'_>], options: &Options) -> Result<Vec<Judged>, Unreadable> {
    let file = File::join(sources);
    if !file.sections.iter().any(|section| section.kind != sections::Kind::Other) {
        return Err(Unreadable::NoSection);
    }
    let haproxy = Haproxy { model: Model::new(&file), options };
    let findings = looked(&Input::Haproxy(&haproxy));
    let Haproxy { model, .. } = haproxy;
    let rows = detection::table(&model);
    let judged = || Judged { findings: vec![], detection: vec![], is_piece: file.is_piece() };
    let mut all: Vec<Judged> = sources.iter().map(|_| judged()).collect();
    for mut finding in findings {
        let (at, line) = file.origin(finding.place.line);
        finding.place.line = line;
        all.get_mut(at).into_iter().for_each(|judged| judged.findings.push(finding.clone()));
    }
    for mut row in rows {
        let (at, line) = file.origin(row.line);
        row.line = line;
        all.get_mut(at).into_iter().for_each(|judged| judged.detection.push(row.clone()));
    }
    Ok(all)
}

/// Joins the names of `all` for a sentence; only the first few if there are many.
fn listed<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN_MAX: usize = 5;
    let all: Vec<&str> = all.into_iter().collect();
    let shown = all.get(..SHOWN_MAX).unwrap_or(&all);
    let more = all.len() - shown.len();
    match (shown.split_last(), more) {
        (None, _) => String::new(),
        (Some((last, [])), 0) => (*last).to_owned(),
        (Some((last, rest)), 0) => format!("{} and {last}", rest.join(", ")),
        (Some(_), more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Returns a word of a file for a message: the part after a `:` or a `=` may be a password and is
/// omitted.
fn word_shown(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let end = text.find([':', '=']).map_or(text.len(), |at| at + 1);
    let (before, behind) = text.split_at(end);
    let shown: String = before.chars().take(CHARS_MAX).collect();
    let is_cut = !behind.is_empty() || shown.len() < before.len();
    if is_cut { format!("{shown}…") } else { shown }
}

impl From<&haproxy::lines::Line> for Location {
    fn from(line: &haproxy::lines::Line) -> Location {
        line.place()
    }
}
