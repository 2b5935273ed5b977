//! Acts on the network.

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::namespaces;
use crate::options::Network;

impl Lab {
    /// Unplugs the member from the network: the other members, its etcd peers and the host lose
    /// their connection to it, and packets are dropped silently. Needs [`Network::Namespaces`].
    pub fn partition(&self, name: &str) -> Result<()> {
        self.needs_cables("partition")?;
        namespaces::unplug(&self.id, &self.member(name)?.name)
            .with_context(|| format!("cannot partition {name}"))
    }

    pub fn heal(&self, name: &str) -> Result<()> {
        self.needs_cables("heal")?;
        namespaces::plug(&self.id, &self.member(name)?.name)
            .with_context(|| format!("cannot heal {name}"))
    }

    fn needs_cables(&self, act: &str) -> Result<()> {
        if self.options.network != Network::Namespaces {
            bail!("{act} needs network namespaces; this lab is on loopback");
        }
        Ok(())
    }
}
