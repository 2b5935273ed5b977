//! A reload: another configuration takes effect while sessions go on.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use pgsteer_core::settings::Config;

use super::{Running, shown_of, start_agent, start_haproxys, start_vips};
use crate::agent::{self, Agent};
use crate::log::limit::DECISIONS;
use crate::memory::{self, Store};
use crate::sources;

impl Running {
    /// Applies another configuration, or keeps the old one if the new one cannot be applied.
    pub async fn reload(&mut self, reread: anyhow::Result<Config>) {
        let changed = match reread {
            Ok(config) => self.change(config).await,
            Err(error) => Err(error),
        };
        match changed {
            Ok(()) => tracing::info!(target: DECISIONS, "reloaded"),
            Err(error) => log_not_reloaded(&error),
        }
    }

    pub async fn change(&mut self, config: Config) -> anyhow::Result<()> {
        // Also if the configuration is unchanged: a password in a file may have changed.
        let prepared = sources::prepare(&config.cluster)?;
        let is_same = config.cluster == self.config.cluster
            && self.observer.sources.know_the_files_of(&prepared);
        let agent = self.new_agent(&config)?;
        if let Some(proxy) = &mut self.proxy {
            proxy.reload(&config)?;
        }
        if !is_same {
            let (reports, plans) =
                (self.observer.reports.clone(), self.observer.published.plans.clone());
            self.observer.sources = prepared.start(
                self.observer.clock,
                reports,
                plans,
                &self.observer.stats.refusal_hints,
            );
        }
        self.log_moved_doors(&config);
        self.warn_of_restart(&config);
        self.observer.configs.send(config.clone()).await.context("the engine is gone")?;
        self.change_store(&config);
        self.change_agent(&config, agent);
        self.change_haproxys(&config)?;
        self.change_vips(&config)?;
        self.shown_config.send_replace(Arc::new(shown_of(&config, self.outputs)));
        self.config = config;
        Ok(())
    }

    /// Warns of changes that take effect at the next start.
    fn warn_of_restart(&self, config: &Config) {
        if config.http != self.config.http || config.proxy != self.config.proxy {
            tracing::warn!("changes of [http] and [proxy] take effect at the next start");
        }
        if config.control != self.config.control {
            tracing::warn!("changes of [control] take effect at the next start");
        }
    }

    /// Changes where the member list is stored, if the configuration changes that.
    fn change_store(&mut self, config: &Config) {
        let store = Store::of(&config.cluster);
        if store == Store::of(&self.config.cluster) {
            return;
        }
        if let Some(keeper) = self.observer.keeper.take() {
            keeper.abort();
        }
        self.observer.keeper = memory::keep(store, self.observer.published.memories.clone());
    }

    /// Logs the new addresses for clients, as far as they have changed.
    fn log_moved_doors(&self, config: &Config) {
        if self.proxy.is_none() {
            return;
        }
        let old = &self.config.services;
        for (name, service) in &config.services {
            if old.get(name).is_none_or(|old| old.listen != service.listen) {
                tracing::info!("service {name} listens on {}", service.listen);
            }
        }
        for name in old.keys().filter(|name| !config.services.contains_key(*name)) {
            tracing::info!("there is no service {name} any more");
        }
    }

    /// Starts an agent if there was none, or if its address has changed.
    fn new_agent(&self, config: &Config) -> anyhow::Result<Option<Agent>> {
        let Some(wanted) = &config.agent else { return Ok(None) };
        match self.agent.as_ref().map(Agent::listen) {
            Some(old) if old == wanted.listen => return Ok(None),
            Some(old) if overlap(old, wanted.listen) => bail!(
                "the agent listens on {old}; that it moves to {} on the same port takes a restart",
                wanted.listen
            ),
            _ => {}
        }
        let door = agent::bind(wanted.listen)?;
        start_agent(door, wanted, &self.observer).map(Some)
    }

    /// Keeps the agent, stops it, or replaces it by `new`, according to `config`.
    fn change_agent(&mut self, config: &Config, new: Option<Agent>) {
        match (&config.agent, new) {
            (None, _) => {
                if self.agent.take().is_some() {
                    tracing::info!("agent-checks are not answered any more");
                }
            }
            (Some(_), Some(new)) => self.agent = Some(new),
            (Some(wanted), None) => {
                if let Some(agent) = &self.agent {
                    agent.change(wanted.clone());
                }
            }
        }
    }

    /// Changes the addresses that follow a service; starts their thread if there were none.
    fn change_vips(&mut self, config: &Config) -> anyhow::Result<()> {
        match &self.vips {
            Some(vips) => vips.change(config.vips.clone()),
            None => self.vips = start_vips(config, &self.observer)?,
        }
        Ok(())
    }

    /// Starts the HAProxy output anew if its part of the configuration has changed.
    fn change_haproxys(&mut self, config: &Config) -> anyhow::Result<()> {
        let old = &self.config;
        if config.haproxy == old.haproxy && config.services == old.services {
            return Ok(());
        }
        self.haproxys = None;
        self.haproxys = start_haproxys(config, &self.observer)?;
        Ok(())
    }
}

/// Logs each error of a configuration on its own line, with its remedy.
fn log_not_reloaded(error: &anyhow::Error) {
    let text = format!("{error:#}");
    let mut errors: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        match (line.strip_prefix("help: "), errors.last_mut()) {
            (Some(help), Some(error)) => {
                error.push_str("; ");
                error.push_str(help);
            }
            _ => errors.push(line.to_owned()),
        }
    }
    for (number, error) in errors.iter().enumerate() {
        let context = match number {
            0 => "not reloaded, the old configuration stays",
            _ => "also in the configuration",
        };
        tracing::error!(target: DECISIONS, "{context}: {error}");
    }
}

/// Returns true if it is impossible to listen on both addresses.
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip().is_unspecified() || other.ip().is_unspecified())
}
