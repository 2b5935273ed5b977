//! From what was written to the settings: defaults filled in, and values that do not fit together
//! reported.

use pgsteer_core::settings::Config;

use crate::error::ConfigErrors;
use crate::sections::{agent, cluster, http, listeners, patroni, proxy, services};
use crate::written::Draft;

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
        let (Some(cluster), Some(services)) = (cluster, services) else {
            return Err(errors);
        };
        let agent = agent::finish(&self, &services, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let (http, proxy) = (http::finish(&self), proxy::finish(&self));
        Ok(Config { cluster, services, http, agent, proxy })
    }

    /// The members are listed one by one, so SQL alone decides on their roles.
    pub(crate) fn is_listed(&self) -> bool {
        !self.members.is_absent() && self.section(patroni::SECTION).is_absent()
    }
}
