//! pg_hba.conf: the logins that PostgreSQL accepts, and their methods (PostgreSQL manual, 20.1 "The
//! pg_hba.conf File").

mod cover;
mod entry;
mod login;
mod options;
mod rules;

use self::entry::Entry;
use super::finding::{Finding, Location};
use super::kind::without_byte_order_mark;
use super::rule::Look;
use super::{Options, Unreadable};

pub use self::login::CheckLogin;
pub use self::rules::RULES;

/// A line that PostgreSQL refuses.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Its place.
    pub place: Location,
    /// The reason.
    pub why: String,
    /// It does not even begin like a line of pg_hba.conf.
    is_strange: bool,
}

/// The input of the rules.
#[derive(Debug, Default)]
pub struct Hba {
    /// The parsed lines, in order.
    entries: Vec<Entry>,
    /// The lines that PostgreSQL refuses.
    refused: Vec<Refused>,
    /// Other files may contain further lines.
    has_includes: bool,
    /// The check login, if a pgsteer.toml is known.
    login: Option<CheckLogin>,
}

impl Hba {
    /// Parses a text.
    pub fn read(text: &str, postgres: Option<u16>) -> Hba {
        let mut hba = Hba::default();
        let (text, has_mark) = without_byte_order_mark(text);
        if has_mark {
            let why = "a byte order mark stands in front of it, which PostgreSQL takes for a word";
            let why = why.to_owned();
            hba.refused.push(Refused { place: Location::line(1), why, is_strange: false });
        }
        for line in entry::logical_lines(text) {
            match Entry::read(&line, postgres) {
                Ok(Some(entry)) => hba.entries.push(entry),
                Ok(None) => hba.has_includes |= line.is_include(),
                Err(refused) => hba.refused.push(refused),
            }
        }
        hba
    }
}

/// Returns the findings for a text.
pub(super) fn judge(
    text: &str,
    options: &Options,
    login: Option<&CheckLogin>,
) -> Result<Vec<Finding>, Unreadable> {
    let mut hba = Hba::read(text, options.postgres);
    hba.login = login.cloned();
    // A few refused lines are mistakes. If most are refused, the text is of another kind.
    let strange = hba.refused.iter().filter(|refused| refused.is_strange).count();
    if strange > hba.entries.len() + hba.refused.len() - strange {
        return Err(Unreadable::NoLines);
    }
    Ok(super::looked(RULES, |look, findings| {
        if let Look::PgHba(look) = look {
            look(&hba, findings);
        }
    }))
}
