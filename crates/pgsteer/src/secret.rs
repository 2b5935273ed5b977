//! A secret: text that no message, log or page can show by accident.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{anyhow, bail};
use tracing::warn;

use crate::diagnostic::Diagnostic;

/// The maximum size of a password file in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Reads the first line of `file`. A file that other users than its owner may read is accepted
    /// with a warning in the log.
    ///
    /// # Errors
    /// A file that cannot be read, is empty, too large or not UTF-8; the message names the file and
    /// shows nothing of its contents.
    pub fn read(file: &Path) -> anyhow::Result<Secret> {
        match read(file)?.lines().next() {
            Some(line) if !line.is_empty() => Ok(Secret(line.to_owned())),
            _ => bail!("{}: no password in its first line", file.display()),
        }
    }

    /// Reads all lines of `file` that are not empty.
    ///
    /// # Errors
    /// Same as [`Secret::read`].
    pub fn read_lines(file: &Path) -> anyhow::Result<Vec<Secret>> {
        let text = read(file)?;
        let lines: Vec<Secret> =
            text.lines().filter(|line| !line.is_empty()).map(Secret::from).collect();
        if lines.is_empty() {
            bail!("{}: no password in it", file.display());
        }
        Ok(lines)
    }

    /// Returns true if `given` is this secret. The time does not depend on where they differ.
    pub fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let differs = own.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
        own.len() == given.len() && differs == 0
    }

    /// The password itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let mut bytes = Vec::new();
    let mut mode = 0;
    let length = File::open(file)
        .and_then(|opened| {
            mode = opened.metadata()?.permissions().mode();
            opened.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)
        })
        .map_err(|error| Diagnostic::unreadable(file, &error))?;
    if let Some(readers) = readers(mode) {
        warn!(
            "{name}: {readers} may read this password (mode {:04o}): chmod 600 {name}, with pgsteer's user \
             as the owner",
            mode & 0o7777
        );
    }
    if length as u64 > SECRET_BYTES_MAX {
        bail!("{name}: a password file has at most {SECRET_BYTES_MAX} bytes");
    }
    String::from_utf8(bytes).map_err(|_| anyhow!("{name}: not UTF-8"))
}

/// Returns which users besides the owner may read a file with this mode.
fn readers(mode: u32) -> Option<&'static str> {
    match (mode & 0o004, mode & 0o040) {
        (0, 0) => None,
        (0, _) => Some("the group of the file"),
        _ => Some("every user of this machine"),
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sources::fake::Log;

    fn file(name: &str, content: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("pgsteer-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn the_password_is_the_first_line() {
        let path = file("two-lines", b"open sesame\r\nanother line\n");
        assert_eq!(Secret::read(&path).unwrap().expose(), "open sesame");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_its_group_or_others_may_read_is_warned_of() {
        let path = file("open", b"open sesame");
        let log = Log::default();
        let _guard = log.listen();
        for mode in [0o600, 0o400, 0o640, 0o644, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Secret::read(&path).unwrap().expose(), "open sesame");
        }
        let text = log.text();
        let lines: Vec<&str> = text.lines().collect();
        let expected = [("the group", "0640"), ("every user", "0644"), ("every user", "0604")];
        assert_eq!(lines.len(), expected.len(), "{text}");
        for (line, (readers, mode)) in lines.iter().zip(expected) {
            assert!(line.contains(readers) && line.contains(mode), "{line}");
            assert!(!line.contains("sesame"));
        }
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_error_names_the_file_and_nothing_that_is_in_it() {
        for content in [b"\xffhunter2".as_slice(), b"", b"\nhunter2", &[b'x'; 5000]] {
            let path = file("bad", content);
            let message = format!("{:#}", Secret::read(&path).unwrap_err());
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
            fs::remove_file(path).unwrap();
        }
        let message = format!("{:#}", Secret::read(Path::new("/nowhere/pw")).unwrap_err());
        assert!(message.contains("/nowhere/pw"), "{message}");
    }

    #[test]
    fn it_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(...)");
    }
}
