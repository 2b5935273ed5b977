//! TLS passed through: client and server agree on it, and pgsteer reads nothing of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use pgsteer_lab::Lab;

use crate::clients::{psql, python, run};
use crate::steer::{Steer, Wanted};

const IS_TLS: [&str; 2] = ["-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"];

/// The number of clients at the same time.
const WRITERS: usize = 4;

/// Turns TLS on at all members, and off again when it is dropped.
struct TlsEnabled<'a>(&'a Lab);

impl<'a> TlsEnabled<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let certified = TlsEnabled(lab);
        for member in lab.members() {
            // The server makes the files itself, because it must own the key.
            let make = "COPY (SELECT 1) TO PROGRAM 'openssl req -x509 -newkey rsa:2048 -nodes -days 2 \
                        -subj /CN=lab -keyout server.key -out server.crt 2>/dev/null && \
                        chmod 600 server.key'";
            lab.sql(&member.name, make)?;
            certified.switch(&member.name, "SET ssl = on")?;
        }
        Ok(certified)
    }

    fn switch(&self, member: &str, how: &str) -> Result<()> {
        self.0.sql(member, &format!("ALTER SYSTEM {how}"))?;
        self.0.sql(member, "SELECT pg_reload_conf()").map(drop)
    }
}

impl Drop for TlsEnabled<'_> {
    fn drop(&mut self) {
        for member in self.0.members() {
            // A member that is down keeps the setting, which does no harm.
            let _ = self.switch(&member.name, "RESET ssl");
        }
    }
}

pub fn clients_that_request_tls_get_it_from_the_server(lab: &Lab) -> Result<()> {
    let _certified = TlsEnabled::new(lab)?;
    let steer = Steer::start(lab, &Wanted::default())?;
    for door in [steer.doors.write, steer.doors.read] {
        for (mode, is_tls) in [("require", "t"), ("prefer", "t"), ("allow", "f"), ("disable", "f")]
        {
            let printed = run(psql(lab, door).args(IS_TLS).env("PGSSLMODE", mode))?;
            ensure!(printed == is_tls, "sslmode {mode} at {door}: {printed}");
        }
    }
    Ok(())
}

/// pgsteer cannot read the cancel key of such a session, and the request looks like any connection.
pub fn a_cancel_request_inside_tls_reaches_the_member_that_runs_the_query(lab: &Lab) -> Result<()> {
    let _certified = TlsEnabled::new(lab)?;
    let steer = Steer::start(lab, &Wanted::default())?;
    let printed = run(&mut python("cancels_tls.py", steer.doors.read)?)?;
    ensure!(printed == "8 of 8 cancelled", "{printed}");
    Ok(())
}

/// A login inside TLS cannot start again at another member, because pgsteer cannot read it. A
/// client in the middle of it gets the server's own error when the old primary stops. All others
/// wait as usual.
pub fn a_switchover_breaks_only_logins_in_progress(lab: &Lab) -> Result<()> {
    let _certified = TlsEnabled::new(lab)?;
    let steer = Steer::start(lab, &Wanted::default())?;
    let primary = lab.primary()?.name.clone();
    run(psql(lab, steer.doors.write)
        .args(["-c", "DROP TABLE IF EXISTS tls; CREATE TABLE tls (n int)"]))?;
    let ended = AtomicBool::new(false);
    let (failed, count) = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|_| scope.spawn(|| write(lab, &steer, &ended))).collect();
        std::thread::sleep(Duration::from_millis(500));
        let order = lab.order_switchover(None)?;
        let shut = steer.wait_for_gate("write", &primary, "shut", Duration::from_secs(10));
        let shut_at = Instant::now();
        order.wait()?;
        std::thread::sleep(Duration::from_millis(500));
        ended.store(true, Ordering::Relaxed);
        let (mut failed, mut count) = (Vec::new(), 0);
        for writer in writers {
            let (failures, tries) = writer.join().map_err(|_| anyhow!("a writer died"))?;
            failed.extend(failures);
            count += tries;
        }
        shut?;
        let late = failed.iter().filter(|(began, _)| *began > shut_at).count();
        ensure!(late == 0, "{late} of {count} failed after the gate was shut: {failed:?}");
        Ok((failed, count))
    })?;
    let is_read_only = |(_, words): &(Instant, String)| words.contains("read-only");
    ensure!(!failed.iter().any(is_read_only), "{failed:?}");
    ensure!(count > failed.len() && lab.primary()?.name != primary, "{failed:?}");
    Ok(())
}

/// Runs one psql after the other. Returns the start and the error of each failure, and the total
/// count.
fn write(lab: &Lab, steer: &Steer, ended: &AtomicBool) -> (Vec<(Instant, String)>, usize) {
    let (mut failed, mut count) = (Vec::new(), 0);
    while !ended.load(Ordering::Relaxed) {
        let mut command = psql(lab, steer.doors.write);
        command.args(["-c", "INSERT INTO tls VALUES (1)"]).env("PGSSLMODE", "require");
        count += 1;
        let began = Instant::now();
        if let Err(error) = run(&mut command) {
            failed.push((began, format!("{error:#}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (failed, count)
}
