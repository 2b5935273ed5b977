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

/// Patroni answers a switchover when it is over, or after ten seconds of its own.
const ORDER_LIMIT: Duration = Duration::from_secs(30);

/// A switchover that has been ordered and may still be under way.
#[derive(Debug)]
pub struct SwitchoverOrder {
    /// Who was primary when it was ordered.
    pub from: String,
    pub ordered_at: Instant,
    answer: JoinHandle<Result<()>>,
}

impl SwitchoverOrder {
    /// Waits until Patroni says that it is over.
    pub fn wait(self) -> Result<()> {
        self.answer.join().map_err(|_| anyhow!("the thread that waits for Patroni died"))?
    }
}

impl Lab {
    /// Orders a switchover and waits until the new primary takes writes. Returns the new primary.
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

    /// Orders a switchover and returns at once.
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

    /// Has Patroni restart PostgreSQL; returns when it is up again.
    pub fn restart_postgres(&self, name: &str) -> Result<()> {
        let url = format!("{}/restart", self.member(name)?.patroni_url());
        rest::post(&url, &json!({}), ORDER_LIMIT)?.accepted("a restart")?;
        Ok(())
    }

    /// Maintenance mode: Patroni watches and does nothing by itself. Returns when every Patroni that
    /// answers has taken note.
    pub fn pause(&self) -> Result<()> {
        self.set_pause(true)
    }

    pub fn resume(&self) -> Result<()> {
        self.set_pause(false)
    }

    /// Sets or takes away the tag `noloadbalance: true`; returns when Patroni shows it.
    pub fn set_noloadbalance(&self, name: &str, wanted: bool) -> Result<()> {
        let member = self.member(name)?;
        self.write_patroni_yml(member, wanted)?;
        self.launcher.children.signal(member, Part::Patroni, Signal::HUP)?;
        wait_for("Patroni to take the tag", Duration::from_secs(15), || {
            let told = told_by(member).map_err(|error| format!("{error:#}"))?;
            let tag = told.pointer("/tags/noloadbalance").and_then(Value::as_bool);
            if tag.unwrap_or(false) == wanted {
                Ok(())
            } else {
                Err(format!("{name} still says {told}"))
            }
        })
    }

    /// The leader lock runs out now instead of at the end of its ttl, by which a test of what comes
    /// after need not wait 20 seconds. A Patroni that is alive takes it back at once.
    pub fn expire_lock(&self) -> Result<()> {
        // "/service/lab/leader", as the JSON of etcd's gateway wants it.
        let key = json!({ "key": "L3NlcnZpY2UvbGFiL2xlYWRlcg==" });
        let mut last = anyhow!("the lab has no member");
        let taken = self.members().iter().any(|member| {
            let url = format!("http://{}/v3/kv/deleterange", member.etcd_addr());
            rest::post(&url, &key, Duration::from_secs(5))
                .and_then(|answer| answer.accepted("to drop the lock"))
                .map_err(|error| last = error)
                .is_ok()
        });
        if taken { Ok(()) } else { Err(last) }
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
                .find(|member| told_by(member).is_ok_and(|told| is_paused(&told) != wanted));
            late.map_or(Ok(()), |member| Err(format!("{} has not", member.name)))
        })
    }

    /// Whether the cluster is in maintenance mode, as written in etcd. What a Patroni itself believes is
    /// a loop old, and nothing yet when it has just been started.
    pub fn is_paused(&self) -> Result<bool> {
        let mut last = anyhow!("no Patroni answers");
        for url in self.patroni_urls() {
            let asked = rest::get(&format!("{url}/config"), ANSWER_LIMIT);
            match asked.and_then(|answer| answer.accepted("a look at the configuration")?.json()) {
                Ok(told) => return Ok(is_paused(&told)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What the member's own `/patroni` says.
    pub fn patroni_says(&self, name: &str) -> Result<Value> {
        told_by(self.member(name)?)
    }

    /// The first Patroni's `/cluster` that answers.
    pub fn cluster_says(&self) -> Result<Value> {
        for url in self.patroni_urls() {
            if let Ok(answer) = rest::get(&format!("{url}/cluster"), ANSWER_LIMIT) {
                return answer.json();
            }
        }
        bail!("no Patroni answers /cluster")
    }
}

fn told_by(member: &Member) -> Result<Value> {
    rest::get(&format!("{}/patroni", member.patroni_url()), ANSWER_LIMIT)?.json()
}

fn is_paused(told: &Value) -> bool {
    told.get("pause").and_then(Value::as_bool).unwrap_or(false)
}
