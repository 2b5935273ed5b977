//! docs/BENCHMARKS.md: each benchmark replaces the text between its two markers, and nothing else.

use std::path::Path;

use anyhow::{Context, Result};

const HEAD: &str = "\
# Benchmarks

`make bench-failover` and `make bench-proxy` write these two sections. A bar that is not met is shown as such.
";

/// Replaces the text between the markers of `name`, or adds it at the end.
pub fn write_section(path: &Path, name: &str, text: &str) -> Result<()> {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HEAD.to_owned(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, replaced(&before, name, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(document: &str, name: &str, text: &str) -> String {
    let begin = format!("<!-- {name}:begin -->");
    let end = format!("<!-- {name}:end -->");
    let section = format!("{begin}\n{}\n{end}", text.trim());
    let found = document.find(&begin).zip(document.find(&end));
    match found {
        Some((from, to)) if from < to => {
            format!("{}{section}{}", &document[..from], &document[to + end.len()..])
        }
        _ => format!("{}\n\n{section}\n", document.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_added_and_replaced_without_a_change_of_its_neighbour() {
        let one = replaced(HEAD, "one", "first");
        let both = replaced(&one, "two", "second");
        let again = replaced(&both, "one", "third");
        assert!(again.starts_with(HEAD.trim_end()));
        assert!(again.contains("<!-- one:begin -->\nthird\n<!-- one:end -->"));
        assert!(again.contains("<!-- two:begin -->\nsecond\n<!-- two:end -->"));
        assert!(!again.contains("first"));
    }
}
