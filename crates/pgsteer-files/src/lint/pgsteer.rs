//! pgsteer.toml as its rules read it.

use super::hba::CheckLogin;
use super::location::Location;
use pgsteer_config::error::ConfigErrors;
use pgsteer_config::file;
use pgsteer_core::settings::Config;

/// The file as its rules see it.
#[derive(Debug)]
pub struct Pgsteer {
    /// The settings, or the errors.
    pub read: Result<Config, ConfigErrors>,
    /// The heads of its sections, with their lines.
    heads: Vec<(usize, String)>,
}

impl Pgsteer {
    /// Parses a text.
    pub fn read(text: &str) -> Pgsteer {
        let (draft, errors) = file::read(text, "");
        let head = |(number, line): (usize, &str)| {
            let name = line.trim().strip_prefix('[')?.split_once(']')?.0;
            Some((number, name.trim().to_owned()))
        };
        let heads = (1..).zip(text.lines()).filter_map(head).collect();
        Pgsteer { read: draft.finish(errors), heads }
    }

    /// Returns the place where a section begins, if it is in the file.
    pub fn section(&self, name: &str) -> Option<Location> {
        let head = self.heads.iter().find(|(_, head)| head == name)?;
        Some(Location::line(head.0))
    }
}

/// Returns the check login of a text; none without `[check]`, or in a file that is refused.
pub fn check_login(text: &str) -> Option<CheckLogin> {
    Pgsteer::read(text).read.ok()?.cluster.check.as_ref().map(CheckLogin::from)
}
