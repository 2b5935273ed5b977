//! Acts as lines of text, for people at a terminal.

use std::fmt::Write;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::options::Network;

/// The available acts, each with a short description.
pub const ACTS_HELP: &str = "  \
  status                     the primary, and what is wrong with each member
  switchover [NAME]          to NAME, or to the member that Patroni chooses
  crash NAME, revive NAME    SIGKILL to all of a member except etcd; start it again
  freeze NAME, thaw NAME     SIGSTOP to the same processes; SIGCONT
  partition NAME, heal NAME  cut the member's network; needs --network namespaces
  stop-pgbouncer NAME, start-pgbouncer NAME
  lead-pgbouncer NAME OTHER  to OTHER's PostgreSQL; OTHER may be NAME, or `nowhere`
  kill-patroni NAME, start-patroni NAME, freeze-patroni NAME, thaw-patroni NAME
  stop-postgres NAME, freeze-postgres NAME, thaw-postgres NAME, restart-postgres NAME
  restart-as-standby NAME    PostgreSQL comes back in recovery; pause first
  pause, resume              Patroni's maintenance mode
  promote NAME               pg_promote() without Patroni
  noloadbalance NAME on|off  the tag
  pause-replay NAME, resume-replay NAME
  reset                      undo everything and wait until the cluster is healthy
";

impl Lab {
    /// Performs one act and returns its output.
    pub fn act(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["status"] => return Ok(self.status()),
            ["switchover"] => return self.switch(None),
            ["switchover", name] => return self.switch(Some(name)),
            ["pause"] => self.pause(),
            ["resume"] => self.resume(),
            ["reset"] => self.reset(),
            ["noloadbalance", name, "on"] => self.set_noloadbalance(name, true),
            ["noloadbalance", name, "off"] => self.set_noloadbalance(name, false),
            ["lead-pgbouncer", name, "nowhere"] => {
                self.lead_pgbouncer(name, self.member(name)?.nowhere())
            }
            ["lead-pgbouncer", name, other] => {
                self.lead_pgbouncer(name, self.member(other)?.postgres_addr())
            }
            [act, name] => self.act_on(act, name),
            _ => bail!("the act {line:?} is not valid; the available acts are:\n{ACTS_HELP}"),
        }?;
        Ok("done".to_owned())
    }

    fn act_on(&self, act: &str, name: &str) -> Result<()> {
        match act {
            "crash" => self.crash(name),
            "revive" => self.revive(name),
            "freeze" => self.freeze(name),
            "thaw" => self.thaw(name),
            "partition" => self.partition(name),
            "heal" => self.heal(name),
            "stop-pgbouncer" => self.stop_pgbouncer(name),
            "start-pgbouncer" => self.start_pgbouncer(name),
            "kill-patroni" => self.kill_patroni(name),
            "start-patroni" => self.start_patroni(name),
            "freeze-patroni" => self.freeze_patroni(name),
            "thaw-patroni" => self.thaw_patroni(name),
            "stop-postgres" => self.stop_postgres(name),
            "freeze-postgres" => self.freeze_postgres(name),
            "thaw-postgres" => self.thaw_postgres(name),
            "restart-postgres" => self.restart_postgres(name),
            "restart-as-standby" => self.restart_as_standby(name),
            "promote" => self.promote_by_hand(name),
            "pause-replay" => self.wal_replay_pause(name),
            "resume-replay" => self.wal_replay_resume(name),
            _ => bail!("there is no act {act:?}; the available acts are:\n{ACTS_HELP}"),
        }
    }

    fn switch(&self, to: Option<&str>) -> Result<String> {
        let primary = self.switchover(to)?;
        Ok(format!("{} is primary", primary.name))
    }

    fn status(&self) -> String {
        let mut text = String::new();
        let writable = self.writable();
        let ailments = self.ailments();
        // Without a primary, the state of the single members is unknown.
        let no_primary = ailments.iter().any(|ailment| ailment.member == "all");
        let otherwise = if no_primary { "" } else { "well" };
        for member in self.members() {
            let role = if writable.iter().any(|each| each.name == member.name) {
                "takes writes"
            } else {
                "takes no writes"
            };
            let ails = ailments
                .iter()
                .find(|ailment| ailment.member == member.name)
                .map_or(otherwise, |ailment| ailment.words.as_str());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {:15} {role:16} {ails}", member.name, member.ip);
        }
        for ailment in ailments.iter().filter(|ailment| ailment.member == "all") {
            let _ = writeln!(text, "{}", ailment.words);
        }
        text.trim_end().to_owned()
    }

    /// The addresses and DSNs of all parts, for an interactive user.
    pub fn directory(&self) -> Result<String> {
        let primary = self.primary().context("the lab is not healthy")?;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "lab {} is up after {:.1} s: Patroni from {}, network {}, files in {}\n",
            self.id,
            self.started_in.as_secs_f64(),
            self.options.patroni,
            self.options.network,
            self.folder.display()
        );
        for member in self.members() {
            let mark = if member.name == primary.name { " (primary)" } else { "" };
            let _ = writeln!(text, "{}{mark}", member.name);
            for (what, address) in [
                ("superuser", member.superuser_dsn()),
                ("application", member.app_dsn()),
                ("checks", member.check_dsn()),
                ("pooled", member.pooled_dsn()),
                ("Patroni", member.patroni_url()),
                ("etcd", member.etcd_url()),
            ] {
                let _ = writeln!(text, "  {what:<11} {address}");
            }
        }
        if self.options.network == Network::Namespaces {
            let _ = writeln!(text, "\nThe host is {} to the members.", self.host_ip());
        }
        Ok(text)
    }
}
