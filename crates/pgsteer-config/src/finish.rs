//! Converts the written values to the settings: adds the defaults and reports conflicts.

use pgsteer_core::settings::Config;

use crate::error::ConfigErrors;
use crate::sections::{
    agent, cluster, control, haproxy, http, listeners, patroni, proxy, services, vip,
};
use crate::written::Draft;

impl Draft {
    /// Adds the defaults and checks for conflicts. `errors` are the errors found so far in file and
    /// flags. With any error there is no configuration.
    ///
    /// # Errors
    /// All of `errors`, all missing values, and all conflicts.
    pub fn finish(mut self, mut errors: ConfigErrors) -> Result<Config, ConfigErrors> {
        if errors.iter().any(|error| error.problem.hides_the_rest()) {
            return Err(errors);
        }
        // If no services were written, the two usual ones exist from here on.
        self.services_mut();
        listeners::check(&self, &mut errors);
        let cluster = cluster::finish(&self, &mut errors);
        let services = services::finish(&self, &mut errors);
        let (Some(cluster), Some(services)) = (cluster, services) else {
            return Err(errors);
        };
        let agent = agent::finish(&self, &services, &mut errors);
        let http = http::finish(&self, &mut errors);
        let haproxy = haproxy::finish(&self, &services, &mut errors);
        let vips = vip::finish(&self, &cluster.members, &services, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let proxy = proxy::finish(&self);
        let control = control::finish(&self);
        Ok(Config { cluster, services, http, agent, proxy, haproxy, control, vips })
    }

    /// Returns true if the members are listed one by one, so that SQL alone decides on their roles.
    pub(crate) fn is_listed(&self) -> bool {
        !self.members.is_absent() && self.section(patroni::SECTION).is_absent()
    }
}
