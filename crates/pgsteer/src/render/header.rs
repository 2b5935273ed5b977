//! The header of a rendered file: its sources, and the command that renders it again.

use pgsteer_core::settings::Config;

/// Returns the header's text. The same command yields the same text, so that `--check` reports
/// changes of the file and not of its time.
pub fn text(config: &Config, arguments: impl Iterator<Item = String>) -> String {
    let name = config.cluster.label();
    let command = command(arguments);
    format!(
        "Made for the cluster {name} by pgsteer. What is changed here is lost when it is made again:\n{command}"
    )
}

/// The command line without the flags that do not change the files.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["pgsteer".to_owned()];
    let mut arguments = arguments.skip(1);
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "--check" => {}
            "--out" => drop(arguments.next()),
            other if other.starts_with("--out=") => {}
            other => words.push(quoted(other)),
        }
    }
    words.join(" ")
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let word: String = word.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_same_for_any_output() {
        let of = |line: &str| command(line.split('|').map(str::to_owned));
        let plain = of("/usr/bin/pgsteer|render|haproxy|--patroni|http://[::1]");
        assert_eq!(plain, "pgsteer render haproxy --patroni 'http://[::1]'");
        assert_eq!(of("x|render|haproxy|--out|a b|--check|--patroni|http://[::1]|--out=c"), plain);
        assert_eq!(of("x|it's|a\nb"), r"pgsteer 'it'\''s' 'a?b'");
    }
}
