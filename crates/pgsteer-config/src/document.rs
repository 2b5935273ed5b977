//! Documents generated from the table of keys: the example file and the reference.

use std::fmt::Write;

use crate::key::{AnyKey, Command, SectionKeys};
use crate::sections::{SECTIONS, services};

/// The maximum length of a comment line in the example file, in characters.
const LINE_CHARS_MAX: usize = 98;
/// The column at which `# example` begins.
const EXAMPLE_COLUMN: usize = 48;

const EXAMPLE_HEAD: &str = "\
# pgsteer.example.toml: every key of pgsteer's configuration. It is generated: see `make docs`.
#
# Copy it to /etc/pgsteer/pgsteer.toml. `pgsteer run --check-config` shows what pgsteer makes
# of it, or everything that is wrong with it; a SIGHUP applies it, all but [http] and [proxy].
#
# A line that starts with `#` and has no space after it is a setting. It shows the default,
# so that it changes nothing when the `#` is removed; or it ends with `# example`, where
# there is no default. Flags of `pgsteer run` win over this file.
#
# Times are numbers of seconds, fractions allowed. Sizes are spelled as in postgresql.conf:
# B, kB, MB, GB, TB. An address to listen on is ADDRESS:PORT, as \"127.0.0.1:5000\" or
# \"[::]:5000\"; a port alone means all IPv4 addresses.
";

/// The sections that are optional and change something if they are present.
const OPTIONAL: [&str; 6] = ["etcd", "members", "check", "agent", "haproxy", "vip"];

/// Returns the example file.
pub fn example_file() -> String {
    let mut text = EXAMPLE_HEAD.to_owned();
    for section in SECTIONS {
        text.push_str("\n\n");
        comment(&mut text, section.help);
        match section.name {
            "members" => members(&mut text, section),
            "services" => usual_services(&mut text, section),
            _ => plain_section(&mut text, section),
        }
    }
    text
}

fn plain_section(text: &mut String, section: &SectionKeys) {
    let is_optional = OPTIONAL.contains(&section.name);
    if section.at_restart {
        comment(text, "A change takes effect at the next start.");
    }
    if is_optional {
        let named = if section.name == "vip" { ".write" } else { "" };
        example(text, &format!("[{}{named}]", section.name));
    } else {
        let _ = writeln!(text, "[{}]", section.name);
    }
    for key in section.keys {
        text.push('\n');
        comment(text, &help(*key));
        let default = key.default_text();
        let shown = if is_optional { shown(*key) } else { String::new() };
        let value = if is_optional { &shown } else { default.as_deref().unwrap_or(key.example()) };
        let setting = format!("{} = {value}", key.name());
        if section.name == "patroni" && key.name() == "urls" {
            let _ = writeln!(text, "{setting}");
        } else if default.is_some() && !is_optional {
            let _ = writeln!(text, "#{setting}");
        } else {
            example(text, &setting);
        }
    }
}

fn members(text: &mut String, section: &SectionKeys) {
    for (number, address) in [(1, "10.0.0.11"), (2, "10.0.0.12")] {
        example(text, &format!("[members.n{number}]"));
        for key in section.keys {
            example(text, &format!("{} = \"{address}:5432\"", key.name()));
        }
    }
}

fn usual_services(text: &mut String, section: &SectionKeys) {
    for (name, usual) in services::USUAL {
        let _ = writeln!(text, "\n[services.{name}]");
        for key in section.keys {
            let usual = usual.iter().find(|(usual, _)| *usual == key.name());
            if usual.is_none() && key.for_replicas() != (name == "read") {
                continue;
            }
            if name == "write" || key.for_replicas() {
                text.push('\n');
                comment(text, &help(*key));
            }
            let default = usual.map(|(_, value)| (*value).to_owned()).or(key.default_text());
            match default {
                Some(value) => {
                    let _ = writeln!(text, "#{} = {value}", key.name());
                }
                None => example(text, &format!("{} = {}", key.name(), key.example())),
            }
        }
    }
    text.push('\n');
    comment(text, "A service of your own.");
    for line in ["[services.reports]", "listen = \"0.0.0.0:5002\"", "role = \"replica\""] {
        example(text, line);
    }
}

/// The help, with the accepted values and the default.
fn help(key: &dyn AnyKey) -> String {
    let unset = key.unset().map(|unset| format!(" Without it: {unset}.")).unwrap_or_default();
    let accepts = key.accepts();
    let accepts = match accepts.strip_prefix("from") {
        Some(range) => format!(" From{range}."),
        None => String::new(),
    };
    format!("{}{accepts}{unset}", key.help())
}

/// Adds a setting that is not a default.
fn example(text: &mut String, setting: &str) {
    let _ = writeln!(text, "{:<EXAMPLE_COLUMN$} # example", format!("#{setting}"));
}

fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > LINE_CHARS_MAX {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

const REFERENCE_HEAD: &str = "\
# Configuration

Every key of `/etc/pgsteer/pgsteer.toml`, by section. This page is generated from the table of keys: see
`make docs`. [pgsteer.example.toml](../pgsteer.example.toml) has the same keys in a file to start from.

Flags win over the file. `pgsteer run --check-config` shows the resulting settings, or all errors at
once. A SIGHUP reads the file again; sections that are marked \"at the next start\" keep their old values
until then. A file with an error is not used, and the old settings stay in force.
";

/// Returns the reference, in Markdown.
pub fn reference() -> String {
    let mut text = REFERENCE_HEAD.to_owned();
    for section in SECTIONS {
        let name = match section.name {
            "members" | "services" | "vip" => format!("{}.NAME", section.name),
            name => name.to_owned(),
        };
        let _ = writeln!(text, "\n## [{name}]\n\n{}", section.help);
        let when = if section.at_restart { "at the next start" } else { "by a reload (SIGHUP)" };
        let _ = writeln!(text, "A change takes effect {when}.\n");
        text.push_str("| key | accepts | default | flag | |\n|---|---|---|---|---|\n");
        for key in section.keys {
            let default = match (key.unset(), key.default_text()) {
                (Some(unset), _) => unset.to_owned(),
                (None, Some(value)) => format!("`{value}`"),
                (None, None) => "none".to_owned(),
            };
            let (name, accepts, flags) = (key.name(), key.accepts(), flags(*key));
            let _ = writeln!(
                text,
                "| `{name}` | {accepts}, as `{}` | {default} | {flags} | {} |",
                shown(*key),
                key.help()
            );
        }
    }
    text
}

fn shown(key: &dyn AnyKey) -> String {
    let example = Some(key.example()).filter(|example| !example.is_empty());
    example.map_or_else(|| key.default_text().unwrap_or_default(), str::to_owned)
}

fn flags(key: &dyn AnyKey) -> String {
    let mut shown = Vec::new();
    for flag in key.flags() {
        let command = match flag.command {
            Command::Run => "run",
            Command::Agent => "agent",
            Command::Both => "run, agent",
        };
        let short = flag.short.map(|short| format!(", `-{short}`")).unwrap_or_default();
        let variable = flag.variable.map(|name| format!(", `{name}`")).unwrap_or_default();
        shown.push(format!("`{}`{short}{variable} ({command})", flag.long));
    }
    shown.join("; ")
}
