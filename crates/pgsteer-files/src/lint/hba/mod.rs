//! pg_hba.conf: the logins that PostgreSQL accepts, and their methods (PostgreSQL manual, 20.1 "The
//! pg_hba.conf File").

pub mod address;
pub mod cover;
pub mod entry;
pub mod fields;
mod login;
mod options;

use self::entry::Entry;
use super::kind::without_byte_order_mark;
use super::location::Location;

pub use self::login::CheckLogin;

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
    pub entries: Vec<Entry>,
    /// The lines that PostgreSQL refuses.
    pub refused: Vec<Refused>,
    /// Other files may contain further lines.
    pub has_includes: bool,
    /// The check login, if a pgsteer.toml is known.
    pub login: Option<CheckLogin>,
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
        for line in fields::logical_lines(text) {
            match Entry::read(&line, postgres) {
                Ok(Some(entry)) => hba.entries.push(entry),
                Ok(None) => hba.has_includes |= line.is_include(),
                Err(refused) => hba.refused.push(refused),
            }
        }
        hba
    }

    /// Returns true if most lines are refused from their first word on: a few are mistakes, but then
    /// the text is of another kind.
    pub fn is_strange(&self) -> bool {
        let strange = self.refused.iter().filter(|refused| refused.is_strange).count();
        strange > self.entries.len() + self.refused.len() - strange
    }
}
