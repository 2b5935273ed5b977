//! Acts that are orders to Patroni.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lab::{ANSWER_LIMIT, Lab};
use crate::member::Member;
use crate::patience::wait_for;
use crate::processes::Part;
use crate::rest;
use crate::tools::EtcdApi;

/// Patroni answers a switchover request when the switchover is over, or after its own limit of ten
/// seconds.
const ORDER_LIMIT: Duration = Duration::from_secs(30);

/// A switchover that was requested and may still be in progress.
#[derive(Debug)]
pub struct SwitchoverOrder {
    /// The primary at the time of the request.
    pub from: String,
    pub ordered_at: Instant,
    answer: JoinHandle<Result<()>>,
}

impl SwitchoverOrder {
    /// Waits until Patroni reports the end of the switchover.
    pub fn wait(self) -> Result<()> {
        self.answer.join().map_err(|_| anyhow!("the thread that waits for Patroni died"))?
    }
}

impl Lab {
    /// Requests a switchover and waits until the new primary takes writes. Returns the new primary.
    pub fn switchover(&self, to: Option<&str>) -> Result<&Member> {
        let order = self.order_switchover(to)?;
        let from = order.from.clone();
        order.wait()?;
        wait_for("the new primary to take writes", ORDER_LIMIT, || match self.primary() {
            Ok(primary) if primary.name != from => Ok(()),
            Ok(_) => Err(format!("{from} is still primary")),
            Err(error) => Err(error.to_string()),
        })?;
        self.primary()
    }

    /// Requests a switchover and returns at once.
    pub fn order_switchover(&self, to: Option<&str>) -> Result<SwitchoverOrder> {
        let primary = self.primary().context("a switchover needs a primary")?;
        let mut body = json!({ "leader": primary.name });
        if let Some(to) = to {
            body["candidate"] = json!(self.member(to)?.name);
        }
        let url = format!("{}/switchover", primary.patroni_url());
        let ordered_at = Instant::now();
        let answer = std::thread::spawn(move || {
            rest::post(&url, &body, ORDER_LIMIT)?.accepted("a switchover")?;
            Ok(())
        });
        Ok(SwitchoverOrder { from: primary.name.clone(), ordered_at, answer })
    }

    /// Requests a restart of PostgreSQL from Patroni. Returns when PostgreSQL is up again.
    pub fn restart_postgres(&self, name: &str) -> Result<()> {
        let url = format!("{}/restart", self.member(name)?.patroni_url());
        wait_for("Patroni to restart PostgreSQL", ORDER_LIMIT, || {
            let answer = rest::post(&url, &json!({}), ORDER_LIMIT);
            let accepted = answer.and_then(|it| it.accepted("a restart"));
            // For a moment after a promotion it answers that another action is in progress.
            accepted.map(drop).map_err(|error| format!("{error:#}"))
        })
    }

    /// Turns maintenance mode on: Patroni then takes no action by itself. Returns when every
    /// Patroni that answers reports the pause.
    pub fn pause(&self) -> Result<()> {
        self.set_pause(true)
    }

    pub fn resume(&self) -> Result<()> {
        self.set_pause(false)
    }

    /// Sets or removes the tag `noloadbalance: true`. Returns when Patroni reports the change.
    pub fn set_noloadbalance(&self, name: &str, wanted: bool) -> Result<()> {
        let member = self.member(name)?;
        self.write_patroni_yml(member, wanted)?;
        self.launcher.children.signal(member, Part::Patroni, Signal::HUP)?;
        wait_for("Patroni to take the tag", Duration::from_secs(15), || {
            let status = status_of(member).map_err(|error| format!("{error:#}"))?;
            let tag = status.pointer("/tags/noloadbalance").and_then(Value::as_bool);
            if tag.unwrap_or(false) == wanted {
                Ok(())
            } else {
                Err(format!("{name} still reports {status}"))
            }
        })
    }

    /// Deletes the leader lock, so that a test need not wait 20 seconds for the end of its ttl. A
    /// running Patroni that holds the lock takes it back at once.
    pub fn expire_lock(&self) -> Result<()> {
        let mut last = anyhow!("the lab has no member");
        let gone = self.members().iter().any(|member| {
            let dropped = drop_lock(member, self.launcher.tools.etcd_api);
            dropped.map_err(|error| last = error).is_ok()
        });
        if gone { Ok(()) } else { Err(last) }
    }

    /// Sets `failsafe_mode` and returns when each Patroni acts by it.
    pub fn set_failsafe_mode(&self, wanted: bool) -> Result<()> {
        let url = format!("{}/config", self.primary()?.patroni_url());
        rest::patch(&url, &json!({ "failsafe_mode": wanted }), Duration::from_secs(5))?
            .accepted("a change of failsafe_mode")?;
        wait_for("Patroni to apply failsafe_mode", Duration::from_secs(30), || {
            let late = self.members().iter().find(|member| !shows_failsafe_mode(member, wanted));
            late.map_or(Ok(()), |member| Err(format!("{} has not", member.name)))
        })?;
        // A Patroni reads the configuration at the end of a cycle, and the next cycle acts by it. The key
        // `/failsafe` may be there from an earlier test.
        (0..2).try_for_each(|_| self.wait_for_cycles())
    }

    /// Waits until each Patroni has read its DCS again.
    fn wait_for_cycles(&self) -> Result<()> {
        let last_seen = |member: &Member| status_of(member).map(|it| it["dcs_last_seen"].as_u64());
        for member in self.members() {
            let before = last_seen(member)?;
            wait_for(
                "Patroni to read its DCS again",
                Duration::from_secs(30),
                || match last_seen(member) {
                    Ok(now) if now > before => Ok(()),
                    _ => Err(format!("{} has not", member.name)),
                },
            )?;
        }
        Ok(())
    }

    fn set_pause(&self, wanted: bool) -> Result<()> {
        let order = if wanted { "a pause" } else { "a resume" };
        let body = json!({ "pause": if wanted { Value::Bool(true) } else { Value::Null } });
        let mut last = anyhow!("no Patroni answers");
        let taken = self.members().iter().any(|member| {
            let url = format!("{}/config", member.patroni_url());
            rest::patch(&url, &body, Duration::from_secs(5))
                .and_then(|answer| answer.accepted(order))
                .map_err(|error| last = error)
                .is_ok()
        });
        if !taken {
            return Err(last);
        }
        wait_for("Patroni to take note", Duration::from_secs(15), || {
            let late = self
                .members()
                .iter()
                .find(|member| status_of(member).is_ok_and(|status| is_paused(&status) != wanted));
            late.map_or(Ok(()), |member| Err(format!("{} has not", member.name)))
        })
    }

    /// Returns whether the cluster is in maintenance mode, as stored in etcd. A Patroni's own state
    /// can be one loop old, and is empty just after its start.
    pub fn is_paused(&self) -> Result<bool> {
        let mut last = anyhow!("no Patroni answers");
        for url in self.patroni_urls() {
            let asked = rest::get(&format!("{url}/config"), ANSWER_LIMIT);
            match asked.and_then(|answer| answer.accepted("a look at the configuration")?.json()) {
                Ok(status) => return Ok(is_paused(&status)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The answer of the member's own `/patroni`.
    pub fn patroni_status(&self, name: &str) -> Result<Value> {
        status_of(self.member(name)?)
    }

    /// The answer of `/cluster` from the first Patroni that responds.
    pub fn cluster_status(&self) -> Result<Value> {
        for url in self.patroni_urls() {
            if let Ok(answer) = rest::get(&format!("{url}/cluster"), ANSWER_LIMIT) {
                return answer.json();
            }
        }
        bail!("no Patroni answers /cluster")
    }
}

/// Deletes the lock at the member's own etcd, with the API that Patroni used to write it.
fn drop_lock(member: &Member, api: EtcdApi) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(5);
    let etcd = format!("http://{}", member.etcd_addr());
    match api {
        EtcdApi::V2 => {
            let url = format!("{etcd}/v2/keys/service/lab/leader");
            rest::delete(&url, LIMIT)?.accepted("to drop the lock")?;
        }
        EtcdApi::V3 => {
            // The key "/service/lab/leader" in base64, as etcd's JSON gateway requires.
            let key = json!({ "key": "L3NlcnZpY2UvbGFiL2xlYWRlcg==" });
            let answer = rest::post(&format!("{etcd}/v3/kv/deleterange"), &key, LIMIT)?;
            let status = answer.accepted("to drop the lock")?.json()?;
            if status["deleted"] != "1" {
                bail!("there was no lock to drop: {status}");
            }
        }
    }
    Ok(())
}

fn status_of(member: &Member) -> Result<Value> {
    rest::get(&format!("{}/patroni", member.patroni_url()), ANSWER_LIMIT)?.json()
}

fn is_paused(status: &Value) -> bool {
    status.get("pause").and_then(Value::as_bool).unwrap_or(false)
}

/// Returns true if the member's Patroni shows the mode. The key `/failsafe` stays in etcd after the
/// mode was switched off, so that only the configuration shows that.
fn shows_failsafe_mode(member: &Member, wanted: bool) -> bool {
    let get = |path: &str| {
        let asked = rest::get(&format!("{}{path}", member.patroni_url()), ANSWER_LIMIT);
        asked.and_then(|answer| answer.accepted("a look at failsafe mode"))
    };
    match wanted {
        true => get("/failsafe").is_ok(),
        false => get("/config")
            .and_then(|answer| answer.json())
            .is_ok_and(|config| config["failsafe_mode"] == false),
    }
}
