//! HAProxy's `server-state-file`: the last observed state of the servers, for the next start of HAProxy.
//!
//! With `load-server-state-from-file global` a HAProxy that is reloaded has the weights and the results of
//! the health checks before it accepts its first client (HAProxy's configuration manual,
//! `server-state-file`).

use std::io;
use std::path::Path;

/// Adds the answer to `show servers state BACKEND` to `file`. The version and the header come once.
pub fn add(file: &mut String, answer: &str) {
    let is_first = file.is_empty();
    let lines = answer.lines().filter(|line| !line.trim().is_empty());
    let is_head = |line: &str| line == "1" || line.starts_with('#');
    for line in lines.filter(|line| is_first || !is_head(line)) {
        file.push_str(line);
        file.push('\n');
    }
}

/// Replaces the file in one step, so that HAProxy never reads half of it.
///
/// # Errors
/// The directory cannot be written to.
pub async fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let (path, text) = (path.to_owned(), text.to_owned());
    // A slow disk must not delay the commands to other HAProxys.
    let write = move || std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_header_and_the_lines_of_all_backends() {
        let mut file = String::new();
        for line in ["2 write 1 n1", "3 read 1 n1"] {
            add(&mut file, &format!("1\n# be_id be_name\n{line}\n\n"));
        }
        assert_eq!(file, "1\n# be_id be_name\n2 write 1 n1\n3 read 1 n1\n");
    }
}
