//! The kind of a file: by its name, or by its contents.

use pgsteer_config::sections::SECTIONS;

/// The kinds of files that lint reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy's configuration.
    Haproxy,
    /// Who may log in to PostgreSQL.
    PgHba,
    /// pgsteer's own.
    Pgsteer,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Haproxy, Kind::PgHba, Kind::Pgsteer];

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Haproxy => "haproxy",
            Kind::PgHba => "pg-hba",
            Kind::Pgsteer => "pgsteer",
        }
    }

    /// Returns the kind of a file with this name and text.
    pub fn of(name: &str, text: &str) -> Option<Kind> {
        Kind::of_name(name).or_else(|| Kind::of_text(text))
    }

    fn of_name(name: &str) -> Option<Kind> {
        let file = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        if file.ends_with(".toml") {
            Some(Kind::Pgsteer)
        } else if file.contains("pg_hba") {
            Some(Kind::PgHba)
        } else if file.contains("haproxy") {
            Some(Kind::Haproxy)
        } else {
            None
        }
    }

    fn of_text(text: &str) -> Option<Kind> {
        without_byte_order_mark(text).0.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            let (has_equals, count) = (words.next() == Some("="), line.split_whitespace().count());
            match first {
                "local" | "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc"
                    if count >= 4 =>
                {
                    Some(Kind::PgHba)
                }
                "global" | "defaults" | "frontend" | "backend" | "listen" if !has_equals => {
                    Some(Kind::Haproxy)
                }
                first if first.starts_with('[') && is_section_of_pgsteer(line) => {
                    Some(Kind::Pgsteer)
                }
                _ => None,
            }
        })
    }
}

/// Returns true for `[patroni]` and `[members.n1]`, and not for the sections of another program.
fn is_section_of_pgsteer(line: &str) -> bool {
    let inner = line.split('#').next().unwrap_or_default().trim();
    let inner = inner.trim_start_matches('[').trim_end_matches(']');
    let name = inner.split('.').next().unwrap_or_default().trim();
    SECTIONS.iter().any(|section| section.name == name)
}

/// Returns a text without its byte order mark, and whether it had one.
pub fn without_byte_order_mark(text: &str) -> (&str, bool) {
    text.strip_prefix('\u{feff}').map_or((text, false), |text| (text, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_or_else_by_its_text() {
        assert_eq!(Kind::of("/etc/haproxy/haproxy.cfg", ""), Some(Kind::Haproxy));
        assert_eq!(Kind::of("pg_hba.pgsteer.conf", ""), Some(Kind::PgHba));
        assert_eq!(Kind::of("pgsteer.toml", ""), Some(Kind::Pgsteer));
        assert_eq!(Kind::of("-", "# x\nlisten a\n"), Some(Kind::Haproxy));
        assert_eq!(Kind::of("-", "host all all 0.0.0.0/0 trust\n"), Some(Kind::PgHba));
        assert_eq!(Kind::of("-", "[patroni]\nurls = []\n"), Some(Kind::Pgsteer));
        assert_eq!(Kind::of("-", "[services.read]\nport = 5001\n"), Some(Kind::Pgsteer));
        assert_eq!(Kind::of("pgbouncer.ini", "[databases]\n* = host=127.0.0.1\n"), None);
        assert_eq!(Kind::of("-", "Dear all,\nbackend = 3"), None);
    }
}
