//! The configuration files of a member, as text.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::member::{APP, CHECK, Member, SUPERUSER};
use crate::tools::EtcdApi;

/// The ttl of the leader lock: the least that Patroni 4 allows, so an automatic failover takes
/// about 20 seconds.
pub const TTL: Duration = Duration::from_secs(20);

/// The cluster's name in Patroni.
pub const SCOPE: &str = "lab";
pub const REPLICATION_USER: &str = "replicator";

/// What a member's `patroni.yml` depends on, beside the member itself.
#[derive(Debug)]
pub struct PatroniFile<'a> {
    pub member: &'a Member,
    pub postgres_bin: &'a Path,
    pub etcd_api: EtcdApi,
    /// The addresses that clients connect from, in the notation of pg_hba.conf.
    pub clients: &'a str,
    pub connections_max: u32,
    /// `noloadbalance: true` among the tags.
    pub noloadbalance: bool,
}

impl PatroniFile<'_> {
    /// Each Patroni uses only its own etcd, so it is known in advance which member a partition
    /// affects.
    #[allow(clippy::too_many_lines, reason = "it is one file")]
    pub fn text(&self) -> String {
        let Member { name, ip, postgres_port, patroni_port, etcd_port, folder, .. } = self.member;
        let folder = folder.display();
        let bin = self.postgres_bin.display();
        let clients = self.clients;
        let connections_max = self.connections_max;
        let ttl = TTL.as_secs();
        let noloadbalance = self.noloadbalance;
        let etcd = match self.etcd_api {
            EtcdApi::V2 => "etcd",
            EtcdApi::V3 => "etcd3",
        };
        format!(
            "\
scope: {SCOPE}
name: {name}
restapi:
  listen: {ip}:{patroni_port}
  connect_address: {ip}:{patroni_port}
{etcd}:
  host: {ip}:{etcd_port}
  use_proxies: true
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: 2
    retry_timeout: 3
    maximum_lag_on_failover: 1073741824
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        max_connections: {connections_max}
        max_wal_senders: 12
        max_replication_slots: 12
        max_worker_processes: 8
        wal_log_hints: 'on'
  initdb:
  - encoding: UTF8
  - locale: C
  - no-sync
postgresql:
  listen: {ip}:{postgres_port}
  connect_address: {ip}:{postgres_port}
  data_dir: {folder}/data
  bin_dir: {bin}
  pgpass: {folder}/pgpass
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
  basebackup:
  - checkpoint: fast
  - no-sync
  authentication:
    superuser:
      username: {SUPERUSER}
    replication:
      username: {REPLICATION_USER}
  parameters:
    unix_socket_directories: ''
    shared_buffers: 16MB
    dynamic_shared_memory_type: mmap
    fsync: 'off'
    full_page_writes: 'off'
    wal_keep_size: 256MB
    max_wal_size: 512MB
    wal_receiver_status_interval: 1s
    wal_retrieve_retry_interval: 200ms
    wal_sender_timeout: 5s
    wal_receiver_timeout: 5s
    password_encryption: scram-sha-256
    log_line_prefix: '%m [%p] %q%u@%d '
  pg_hba:
  - host all {SUPERUSER} {clients} trust
  - host replication {REPLICATION_USER} {clients} trust
  - host postgres {CHECK} {clients} scram-sha-256
  - host {APP} {APP} {clients} scram-sha-256
tags:
  noloadbalance: {noloadbalance}
"
        )
    }
}

/// Session pooling, for all databases of the server at `leads_to`.
pub fn pgbouncer_ini(member: &Member, leads_to: SocketAddr) -> String {
    let Member { ip, pgbouncer_port, folder, .. } = member;
    let (host, port) = (leads_to.ip(), leads_to.port());
    let folder = folder.display();
    format!(
        "\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = {ip}
listen_port = {pgbouncer_port}
unix_socket_dir =
auth_type = hba
auth_hba_file = {folder}/pgbouncer_hba.conf
auth_file = {folder}/userlist.txt
admin_users = {SUPERUSER}
pool_mode = session
max_client_conn = 500
default_pool_size = 50
ignore_startup_parameters = extra_float_digits
"
    )
}

/// Same rules as PostgreSQL: the superuser is trusted, all others use SCRAM.
pub fn pgbouncer_hba() -> String {
    format!("host all {SUPERUSER} 0.0.0.0/0 trust\nhost all all 0.0.0.0/0 scram-sha-256\n")
}

/// PgBouncer accepts only the users in this list.
pub fn pgbouncer_userlist() -> String {
    [APP, CHECK, SUPERUSER].map(|name| format!("\"{name}\" \"{name}\"\n")).concat()
}

pub fn etcd_arguments(member: &Member, all: &[Member], api: EtcdApi) -> Vec<String> {
    let client = format!("http://{}", member.etcd_addr());
    let peer = peer_url(member);
    let cluster: Vec<String> =
        all.iter().map(|each| format!("{}={}", each.name, peer_url(each))).collect();
    let mut arguments = vec!["--unsafe-no-fsync".to_owned()];
    if api == EtcdApi::V2 {
        arguments.push("--enable-v2".to_owned());
    }
    for (flag, value) in [
        ("name", member.name.clone()),
        ("data-dir", member.folder.join("etcd").display().to_string()),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", cluster.join(",")),
        ("initial-cluster-state", "new".to_owned()),
        ("logger", "zap".to_owned()),
        ("log-level", "warn".to_owned()),
    ] {
        arguments.push(format!("--{flag}"));
        arguments.push(value);
    }
    arguments
}

fn peer_url(member: &Member) -> String {
    format!("http://{}:{}", member.ip, member.etcd_peer_port)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::address::Ports;

    fn member(number: u8) -> Member {
        let ports = Ports {
            postgres: 15432,
            patroni: 18008,
            pgbouncer: 16432,
            etcd: 12379,
            etcd_peer: 12380,
        };
        let ip = Ipv4Addr::new(127, 0, 7, number);
        Member::new(number.into(), ip, ports, Path::new("/tmp/lab"))
    }

    #[test]
    fn patroni_serves_on_the_members_own_address_only() {
        let text = PatroniFile {
            member: &member(2),
            postgres_bin: Path::new("/pg/bin"),
            etcd_api: EtcdApi::V2,
            clients: "127.0.0.0/8",
            connections_max: 200,
            noloadbalance: true,
        }
        .text();
        assert!(text.contains("\nname: n2\n"));
        assert!(text.contains("restapi:\n  listen: 127.0.7.2:18008\n"));
        assert!(text.contains("postgresql:\n  listen: 127.0.7.2:15432\n"));
        assert!(text.contains("\netcd:\n  host: 127.0.7.2:12379\n"));
        assert!(text.contains("- host all postgres 127.0.0.0/8 trust\n"));
        assert!(text.ends_with("noloadbalance: true\n"));
    }

    #[test]
    fn every_etcd_has_all_peers() {
        let all = [member(1), member(2)];
        let arguments = etcd_arguments(&all[1], &all, EtcdApi::V3);
        assert!(arguments.contains(&"n1=http://127.0.7.1:12380,n2=http://127.0.7.2:12380".into()));
        assert!(arguments.contains(&"/tmp/lab/n2/etcd".into()));
        assert!(!arguments.contains(&"--enable-v2".into()));
    }

    #[test]
    fn pgbouncer_goes_to_its_own_server() {
        let text = pgbouncer_ini(&member(3), member(3).postgres_addr());
        assert!(text.contains("* = host=127.0.7.3 port=15432\n"));
        assert!(text.contains("listen_addr = 127.0.7.3\nlisten_port = 16432\n"));
    }
}
