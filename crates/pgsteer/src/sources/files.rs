//! The files that the configuration of a cluster names: passwords, certificates, keys.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use pgsteer_core::settings::{CheckConfig, ClusterConfig, EtcdConfig, Membership, PatroniConfig};

/// A hash of the files' contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents(u64);

impl Contents {
    /// Reads the files. An unreadable file counts as empty here; the code that uses the file
    /// reports it.
    pub fn of(cluster: &ClusterConfig) -> Contents {
        let mut hasher = DefaultHasher::new();
        for file in named(cluster) {
            file.hash(&mut hasher);
            fs::read(file).unwrap_or_default().hash(&mut hasher);
        }
        Contents(hasher.finish())
    }
}

fn named(cluster: &ClusterConfig) -> Vec<&PathBuf> {
    let mut files = Vec::new();
    if let Membership::Patroni(patroni) = &cluster.members {
        let PatroniConfig { ca_file, cert_file, key_file, .. } = patroni;
        files.extend([ca_file, cert_file, key_file]);
    }
    if let Some(CheckConfig { password_file, ca_file, .. }) = &cluster.check {
        files.extend([password_file, ca_file]);
    }
    if let Some(etcd) = &cluster.etcd {
        let EtcdConfig { password_file, ca_file, cert_file, key_file, .. } = etcd;
        files.extend([password_file, ca_file, cert_file, key_file]);
    }
    files.into_iter().flatten().collect()
}
