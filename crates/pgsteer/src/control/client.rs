//! The client of the control socket, for the commands.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::protocol::{ANSWER_BYTES_MAX, Answer, Request};

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an upgrade may take: its steps have limits of 10, 30 and 5 s, and the sessions follow.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(120);

/// Sends a request to the pgsteer at `socket`, and returns its answer.
///
/// # Errors
/// No pgsteer listens there, the permissions do not suffice, or it does not answer.
pub fn ask(socket: &Path, request: &Request) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(socket).map_err(|error| not_connected(socket, &error))?;
    let shown = socket.display();
    let answer = exchange(stream, request)
        .with_context(|| format!("the process at {shown} has not answered"))?;
    serde_json::from_slice(&answer)
        .with_context(|| format!("the answer of the process at {shown} is not one of pgsteer's"))
}

fn exchange(mut stream: UnixStream, request: &Request) -> anyhow::Result<Vec<u8>> {
    let limit = match request {
        Request::Upgrade { .. } => UPGRADE_TIMEOUT,
        _ => ANSWER_TIMEOUT,
    };
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let limit = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
    let mut answer = Vec::new();
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut answer)?;
    anyhow::ensure!(answer.ends_with(b"\n"), "it has closed the connection, or sent too much");
    Ok(answer)
}

/// The error of a connection, with what to do.
fn not_connected(socket: &Path, error: &io::Error) -> anyhow::Error {
    let shown = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "there is no socket {shown}: pgsteer does not run, or has another [control] socket \
             (--socket PATH)"
        ),
        io::ErrorKind::ConnectionRefused => {
            anyhow!("pgsteer does not run: no process listens on {shown}")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("no permission for {shown}: {}", who_may(socket))
        }
        _ => anyhow!("cannot connect to {shown}: {error}"),
    }
}

/// Who may use the socket.
fn who_may(socket: &Path) -> String {
    match socket.metadata() {
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            let group = group_name(found.gid());
            format!("its group is {group}, its mode {mode:04o}; use sudo, or join that group")
        }
        Err(_) => "its directory cannot be read; use sudo".to_owned(),
    }
}

fn group_name(gid: u32) -> String {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(gid)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("gid {gid}"))
}
