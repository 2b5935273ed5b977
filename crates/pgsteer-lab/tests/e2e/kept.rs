//! Sessions that are kept open, as a connection pool keeps them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pgsteer_lab::{SUPERUSER, Session};

const LIMIT: Duration = Duration::from_secs(10);
/// Some are opened while there is no primary, and wait for the next one.
const OPEN_LIMIT: Duration = Duration::from_secs(40);

/// A session, and the server process that it had when it was opened.
pub struct Kept {
    session: Session,
    backend: String,
}

impl Kept {
    pub fn open(door: SocketAddr) -> Result<Kept> {
        let mut session = Session::connect(door, SUPERUSER, "postgres", OPEN_LIMIT)
            .with_context(|| format!("no session at {door}"))?;
        let backend = who(&mut session)?;
        Ok(Kept { session, backend })
    }

    /// Opens `count` sessions.
    pub fn several(door: SocketAddr, count: usize) -> Result<Vec<Kept>> {
        (0..count).map(|_| Kept::open(door)).collect()
    }

    /// The address of the member that serves the session.
    pub fn member_ip(&self) -> &str {
        self.backend.split(' ').next().unwrap_or_default()
    }

    /// A PgBouncer is in between: the process id of the cancel key differs from that of the server
    /// process.
    pub fn is_pooled(&self) -> bool {
        let [process_id, _] = self.session.cancel_key();
        self.backend.split(' ').next_back() != Some(&process_id.to_string())
    }

    /// Fails unless the session still has the same server process.
    pub fn ensure_alive(&mut self) -> Result<()> {
        let now = who(&mut self.session).context("a kept session was lost")?;
        ensure!(now == self.backend, "a kept session moved from {} to {now}", self.backend);
        Ok(())
    }

    /// Fails unless the session ends within `limit`, as after a reload, which reports its end a moment before.
    pub fn ensure_ends(&mut self, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ensure_ended() {
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                ended => return ended,
            }
        }
    }

    /// Fails unless the session has ended. Returns its last error message.
    pub fn ensure_ended(&mut self) -> Result<String> {
        match self.session.ask_writable(LIMIT) {
            Ok(_) => bail!("a kept session to {} is still there", self.backend),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                bail!("a kept session to {} hangs", self.backend)
            }
            Err(error) => Ok(error.to_string()),
        }
    }
}

fn who(session: &mut Session) -> Result<String> {
    let sql = "SELECT host(inet_server_addr()) || ' ' || pg_backend_pid()";
    let rows = session.query(sql, LIMIT)?;
    rows.into_iter().flatten().flatten().next().context("an empty answer")
}
