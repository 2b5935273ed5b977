//! From what was written to what is meant: defaults filled in, and what does not fit
//! together reported.

mod agent;
mod cluster;
mod listeners;
mod services;

use pgsteer_core::settings::{Config, HttpConfig, ProxyConfig};

use super::draft::{Draft, Field, ProxyDraft};
use super::error::ConfigErrors;
use crate::limits::HTTP_LISTEN;

impl Draft {
    /// Fills in the defaults and checks that all fits together. `errors` are those found
    /// so far in file and flags; with any of them there is no configuration.
    ///
    /// # Errors
    /// All of `errors`, and all that is missing or does not fit together.
    pub fn finish(mut self, mut errors: ConfigErrors) -> Result<Config, ConfigErrors> {
        if errors.iter().any(|error| error.problem.hides_the_rest()) {
            return Err(errors);
        }
        // Where none were written, the usual two are there from here on.
        self.services_mut();
        listeners::check(&self, &mut errors);
        let cluster = cluster::finish(&self, &mut errors);
        let services = services::finish(&self, &mut errors);
        match (cluster, services) {
            (Some(cluster), Some(services)) => {
                let agent = agent::finish(&self, &services, &mut errors);
                match errors.is_empty() {
                    true => Ok(Config {
                        cluster,
                        services,
                        http: self.http.or(Some(HTTP_LISTEN)).map(|listen| HttpConfig { listen }),
                        agent,
                        proxy: proxy(&self.proxy),
                    }),
                    false => Err(errors),
                }
            }
            _ => Err(errors),
        }
    }

    /// The members are listed one by one, so SQL alone tells their roles.
    fn is_listed(&self) -> bool {
        !self.members.is_absent() && self.patroni.is_absent()
    }
}

fn proxy(draft: &ProxyDraft) -> ProxyConfig {
    let default = ProxyConfig::default();
    ProxyConfig {
        workers: count(&draft.workers),
        sessions_max: count(&draft.sessions_max).unwrap_or(default.sessions_max),
        sessions_per_address_max: count(&draft.sessions_per_address_max),
        login_timeout: draft.login_timeout.or(default.login_timeout),
        shutdown_grace: draft.shutdown_grace.or(default.shutdown_grace),
        keepalive: draft.keepalive.or(default.keepalive),
        user_timeout: draft.user_timeout.or(default.user_timeout),
    }
}

/// A number of sessions, if it was given.
fn count(field: &Field<u64>) -> Option<usize> {
    let given = field.given()?;
    usize::try_from(given.value).ok()
}
