//! Acts on processes: kill, stop, continue, start again.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::Lab;
use crate::patience::wait_for;
use crate::processes::{LAB_VARIABLE, PART_VARIABLE, Part};

impl Lab {
    /// Simulates a crash of the machine: SIGKILL to all processes of the member except etcd.
    pub fn crash(&self, name: &str) -> Result<()> {
        self.kill_parts(name, &Part::ALL_BUT_ETCD, "crash")
    }

    /// Simulates the return of the machine: starts Patroni, which starts PostgreSQL, and PgBouncer.
    /// Returns at once; wait for health if the test needs it.
    pub fn revive(&self, name: &str) -> Result<()> {
        self.start_part(name, Part::Patroni)?;
        self.start_part(name, Part::PgBouncer)
    }

    /// Simulates a hung machine: SIGSTOP to all processes of the member except etcd. Its sockets
    /// stay open and send nothing. The kernel still accepts new connections.
    pub fn freeze(&self, name: &str) -> Result<()> {
        self.stop_parts(name, &Part::ALL_BUT_ETCD, "freeze")
    }

    pub fn thaw(&self, name: &str) -> Result<()> {
        self.continue_parts(name, &Part::ALL_BUT_ETCD, "thaw")
    }

    /// Kills the etcd of each member. Its data stays.
    pub fn stop_etcd(&self) -> Result<()> {
        let mut members = self.members().iter();
        members.try_for_each(|member| self.kill_parts(&member.name, &[Part::Etcd], "stop etcd"))
    }

    /// Starts the etcd of each member again.
    pub fn start_etcd(&self) -> Result<()> {
        self.members().iter().try_for_each(|member| self.start_part(&member.name, Part::Etcd))
    }

    pub fn stop_pgbouncer(&self, name: &str) -> Result<()> {
        self.kill_parts(name, &[Part::PgBouncer], "stop PgBouncer")
    }

    pub fn start_pgbouncer(&self, name: &str) -> Result<()> {
        self.start_part(name, Part::PgBouncer)
    }

    /// Changes the server that the member's PgBouncer leads to, and reloads PgBouncer. Existing
    /// sessions keep their server.
    pub fn lead_pgbouncer(&self, name: &str, to: SocketAddr) -> Result<()> {
        let member = self.member(name)?;
        self.write_pgbouncer_ini(member, to)?;
        match self.launcher.children.is_running(member, Part::PgBouncer) {
            true => self.launcher.children.signal(member, Part::PgBouncer, Signal::HUP),
            // A stopped PgBouncer reads the file when it starts.
            false => Ok(()),
        }
    }

    pub fn restart_pgbouncer(&self, name: &str) -> Result<()> {
        self.stop_pgbouncer(name)?;
        self.start_pgbouncer(name)
    }

    /// Freezes PgBouncer alone: the kernel still accepts connections, and PgBouncer does not
    /// answer.
    pub fn freeze_pgbouncer(&self, name: &str) -> Result<()> {
        self.stop_parts(name, &[Part::PgBouncer], "freeze PgBouncer")
    }

    pub fn thaw_pgbouncer(&self, name: &str) -> Result<()> {
        self.continue_parts(name, &[Part::PgBouncer], "thaw PgBouncer")
    }

    /// Kills Patroni alone. PostgreSQL keeps running, and the leader lock expires after its ttl.
    pub fn kill_patroni(&self, name: &str) -> Result<()> {
        self.kill_parts(name, &[Part::Patroni], "kill Patroni")
    }

    pub fn start_patroni(&self, name: &str) -> Result<()> {
        self.start_part(name, Part::Patroni)
    }

    /// Stops Patroni with SIGTERM, which also removes its entry from the cluster's member list.
    /// Patroni stops PostgreSQL as well, unless the cluster is paused. Returns when no Patroni
    /// lists the member.
    pub fn stop_patroni(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        self.launcher.children.signal(member, Part::Patroni, Signal::TERM)?;
        wait_for("the member to leave", Duration::from_secs(30), || {
            let status = self.cluster_status().map_err(|error| format!("{error:#}"))?;
            let members = status["members"].as_array().cloned().unwrap_or_default();
            match members.iter().any(|listed| listed["name"] == *member.name) {
                true => Err(format!("{name} is still listed")),
                false => Ok(()),
            }
        })
    }

    pub fn freeze_patroni(&self, name: &str) -> Result<()> {
        self.stop_parts(name, &[Part::Patroni], "freeze Patroni")
    }

    pub fn thaw_patroni(&self, name: &str) -> Result<()> {
        self.continue_parts(name, &[Part::Patroni], "thaw Patroni")
    }

    /// Freezes PostgreSQL alone: the kernel still accepts connections, and PostgreSQL does not
    /// answer.
    pub fn freeze_postgres(&self, name: &str) -> Result<()> {
        self.stop_parts(name, &[Part::Postgres], "freeze PostgreSQL")
    }

    pub fn thaw_postgres(&self, name: &str) -> Result<()> {
        self.continue_parts(name, &[Part::Postgres], "thaw PostgreSQL")
    }

    /// Stops replay on a replica while it still receives WAL, so that its lag grows with every
    /// write. This does not use pg_wal_replay_pause(), because Patroni resumes replay within
    /// seconds.
    pub fn wal_replay_pause(&self, name: &str) -> Result<()> {
        self.signal_replay(name, Signal::STOP)
    }

    pub fn wal_replay_resume(&self, name: &str) -> Result<()> {
        self.signal_replay(name, Signal::CONT)
    }

    fn signal_replay(&self, name: &str, signal: Signal) -> Result<()> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'";
        let rows = self.sql(name, sql)?;
        let pid = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
        let pid = pid.and_then(Pid::from_raw).with_context(|| format!("{name} replays no WAL"))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal the replay of {name}"))
    }

    /// Stops PostgreSQL alone, in immediate mode. Patroni starts it again.
    pub fn stop_postgres(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        let pid_file = member.data_folder().join("postmaster.pid");
        let text = std::fs::read_to_string(&pid_file)
            .with_context(|| format!("PostgreSQL of {name} does not seem to run"))?;
        let pid = text.lines().next().and_then(|line| line.parse::<i32>().ok());
        let running = self.processes.of(name, &[Part::Postgres]);
        let Some(postmaster) = running
            .iter()
            .map(|process| process.pid)
            .find(|each| Some(each.as_raw_nonzero().get()) == pid)
        else {
            bail!("PostgreSQL of {name} does not run");
        };
        kill_process(postmaster, Signal::QUIT)
            .with_context(|| format!("cannot stop PostgreSQL of {name}"))
    }

    /// Restarts PostgreSQL alone as a standby without a primary, as after an unfinished restore.
    /// Patroni would correct that, so pause the cluster first.
    pub fn restart_as_standby(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        let data = member.data_folder();
        let signal = data.join("standby.signal");
        std::fs::write(&signal, "")
            .with_context(|| format!("cannot write {}", signal.display()))?;
        self.launcher.account.own(&signal)?;
        // pg_ctl reuses the options of the running server.
        let mut words = self.launcher.within(member);
        words.push(self.postgres_bin().join("pg_ctl").display().to_string());
        let output = Command::new(&words[0])
            .args(&words[1..])
            .args(["restart", "--mode=immediate", "--silent", "--log=/dev/null", "-D"])
            .arg(&data)
            .env(LAB_VARIABLE, &self.id)
            .env(PART_VARIABLE, format!("{name}/{}", Part::Postgres.name()))
            .current_dir(&member.folder)
            .output()
            .context("cannot run pg_ctl")?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("PostgreSQL of {name} does not restart: {}", words.trim());
        }
        Ok(())
    }

    pub(crate) fn start_part(&self, name: &str, part: Part) -> Result<()> {
        self.launcher.start(self.member(name)?, part)
    }

    pub(crate) fn kill_parts(&self, name: &str, parts: &[Part], act: &str) -> Result<()> {
        let member = self.member(name)?;
        self.processes
            .kill(&member.name, parts)
            .with_context(|| format!("cannot {act} of {name}"))?;
        self.launcher.children.await_end(member, parts)
    }

    fn stop_parts(&self, name: &str, parts: &[Part], act: &str) -> Result<()> {
        let member = self.member(name)?;
        self.processes.stop(&member.name, parts).with_context(|| format!("cannot {act} of {name}"))
    }

    pub(crate) fn continue_parts(&self, name: &str, parts: &[Part], act: &str) -> Result<()> {
        let member = self.member(name)?;
        self.processes.go_on(&member.name, parts).with_context(|| format!("cannot {act} of {name}"))
    }
}
