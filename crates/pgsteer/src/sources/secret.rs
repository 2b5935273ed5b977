//! A secret: text that no message, log or page can show by accident.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::bail;
use tracing::warn;

use crate::complaint::Complaint;

/// The most bytes that a password file may have.
const SECRET_BYTES_MAX: u64 = 4096;

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Reads the first line of `file`. One that everybody may read is taken, and the log says so.
    ///
    /// # Errors
    /// A file that cannot be read, is empty, too large or no UTF-8; the message names the
    /// file and shows nothing of what is in it.
    pub fn read(file: &Path) -> anyhow::Result<Secret> {
        let name = file.display();
        let mut bytes = Vec::new();
        let mut is_open_to_all = false;
        let length = File::open(file)
            .and_then(|opened| {
                is_open_to_all = is_for_everybody(&opened)?;
                opened.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)
            })
            .map_err(|error| Complaint::unreadable(file, &error))?;
        if is_open_to_all {
            warn!(
                "{name}: everybody on this machine may read this password: chmod 600 {name}, with pgsteer's \
                 user as the owner"
            );
        }
        if length as u64 > SECRET_BYTES_MAX {
            bail!("{name}: a password file has at most {SECRET_BYTES_MAX} bytes");
        }
        let Ok(text) = String::from_utf8(bytes) else {
            bail!("{name}: not UTF-8");
        };
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Secret(line.to_owned())),
            _ => bail!("{name}: no password in its first line"),
        }
    }

    /// The password itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn is_for_everybody(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.permissions().mode() & 0o004 != 0)
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
    fn a_file_is_for_everybody_if_others_than_its_owner_and_group_may_read_it() {
        let path = file("open", b"open sesame");
        for (mode, is_open) in [(0o644, true), (0o604, true), (0o640, false), (0o600, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_for_everybody(&File::open(&path).unwrap()).unwrap(), is_open, "{mode:o}");
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
