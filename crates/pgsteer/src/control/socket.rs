//! The file of the control socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pgsteer_core::settings::ControlConfig;

/// The permissions of the socket's directory, if it has to be made.
const DIRECTORY_MODE: u32 = 0o755;

/// The listening socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file: another process may have replaced it when this one ends.
    file: Option<(u64, u64)>,
}

impl ControlSocket {
    /// Listens on the configured path. A socket that no process listens on is replaced, a living one is
    /// not. A failure is one warning, and pgsteer runs without orders.
    pub fn open(config: &ControlConfig) -> Option<ControlSocket> {
        match ControlSocket::bind(config) {
            Ok(socket) => {
                tracing::info!("orders are accepted at {}", socket.path.display());
                Some(socket)
            }
            Err(error) => {
                tracing::warn!(
                    "there is no control socket, so `pgsteer drain` and the like cannot reach this \
                     process: {error:#} (set [control] socket, or \"\" for none)"
                );
                None
            }
        }
    }

    /// Listens on the configured path.
    ///
    /// # Errors
    /// The directory or the socket cannot be made, or another process listens there.
    pub fn bind(config: &ControlConfig) -> anyhow::Result<ControlSocket> {
        let path = config.socket.clone();
        let shown = path.display();
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        remove_stale(&path)?;
        // It gets its name with its permissions: under the final name no other user could connect
        // before the mode is set.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let listener =
            UnixListener::bind(&temporary).with_context(|| format!("cannot listen on {shown}"))?;
        let named = fs::set_permissions(&temporary, Permissions::from_mode(config.mode))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| listener.set_nonblocking(true));
        if let Err(error) = named {
            let _ = fs::remove_file(&temporary);
            return Err(error).with_context(|| format!("cannot listen on {shown}"));
        }
        let file = identity(&path);
        Ok(ControlSocket { listener, path, file })
    }

    /// Returns true if a process listens on `path`.
    pub fn is_living(path: &Path) -> bool {
        UnixStream::connect(path).is_ok()
    }

    /// The listener for the server, which owns this socket as long as it runs.
    ///
    /// # Errors
    /// The system has no free file.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if self.file.is_some() && identity(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Removes a socket that a process has left behind.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
        Ok(found) if !found.file_type().is_socket() => bail!("{shown} exists and is no socket"),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another process listens on {shown}"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot remove the old socket {shown}"))
        }
        Err(error) => Err(error).with_context(|| format!("{shown} exists and cannot be used")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str) -> ControlConfig {
        let directory =
            std::env::temp_dir().join(format!("pgsteer-c{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        ControlConfig { socket: directory.join("new/control.sock"), mode: 0o600 }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let config = config("stale");
        let first = ControlSocket::bind(&config).unwrap();
        let mode = fs::metadata(&config.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = format!("{:#}", ControlSocket::bind(&config).unwrap_err());
        assert!(error.starts_with("another process listens on "), "{error}");
        drop(first);
        assert!(!config.socket.exists());
        // As after SIGKILL.
        drop(UnixListener::bind(&config.socket).unwrap());
        assert!(config.socket.exists());
        let second = ControlSocket::bind(&config).unwrap();
        assert!(UnixStream::connect(&config.socket).is_ok());
        drop(second);
    }

    #[test]
    fn a_file_at_its_place_is_left_alone() {
        let config = config("file");
        fs::create_dir_all(config.socket.parent().unwrap()).unwrap();
        fs::write(&config.socket, "precious").unwrap();
        assert!(ControlSocket::bind(&config).is_err());
        assert_eq!(fs::read_to_string(&config.socket).unwrap(), "precious");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let config = config("unmade");
        let directory = config.socket.parent().unwrap();
        fs::create_dir_all(directory.parent().unwrap()).unwrap();
        // Not even root can make a directory below a file.
        fs::write(directory, "").unwrap();
        let error = format!("{:#}", ControlSocket::bind(&config).unwrap_err());
        let expected = format!("cannot make the directory {}", directory.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(ControlSocket::open(&config).is_none());
    }
}
