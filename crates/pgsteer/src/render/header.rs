//! What a rendered file says of itself: from what it was made, and how to make it again.

use pgsteer_core::settings::Config;

/// The header's text. It is the same for the same command, so that `--check` finds what differs in
/// the file and not when it was made.
pub fn text(config: &Config, arguments: impl Iterator<Item = String>) -> String {
    let name = config.cluster.label();
    let command = command(arguments);
    format!(
        "Made for the cluster {name} by pgsteer. What is changed here is lost when it is made again:\n{command}"
    )
}

/// The command line without what does not change the files.
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

/// A word as a shell reads it.
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
    fn the_command_is_the_same_wherever_the_files_go() {
        let of = |line: &str| command(line.split('|').map(str::to_owned));
        let plain = of("/usr/bin/pgsteer|render|haproxy|--patroni|http://[::1]");
        assert_eq!(plain, "pgsteer render haproxy --patroni 'http://[::1]'");
        assert_eq!(of("x|render|haproxy|--out|a b|--check|--patroni|http://[::1]|--out=c"), plain);
        assert_eq!(of("x|it's|a\nb"), r"pgsteer 'it'\''s' 'a?b'");
    }
}
