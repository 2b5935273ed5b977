//! One member of the cluster: its name, its addresses, and how to reach it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use crate::address::Ports;

/// The name and password of the application's user, and the name of its database.
pub const APP: &str = "app";
/// The name and password of the user that can only log in to database `postgres`.
pub const CHECK: &str = "pgcheck";
/// The superuser. All addresses of the lab may connect as it without a password.
pub const SUPERUSER: &str = "postgres";

#[derive(Debug, Clone)]
pub struct Member {
    /// `n1`, `n2` and so on.
    pub name: String,
    pub ip: Ipv4Addr,
    pub postgres_port: u16,
    pub patroni_port: u16,
    pub pgbouncer_port: u16,
    pub etcd_port: u16,
    pub etcd_peer_port: u16,
    /// Configuration, logs and data of this member.
    pub folder: PathBuf,
}

impl Member {
    pub(crate) fn new(
        number: usize,
        ip: Ipv4Addr,
        ports: Ports,
        lab_folder: &std::path::Path,
    ) -> Self {
        let name = format!("n{number}");
        Self {
            folder: lab_folder.join(&name),
            name,
            ip,
            postgres_port: ports.postgres,
            patroni_port: ports.patroni,
            pgbouncer_port: ports.pgbouncer,
            etcd_port: ports.etcd,
            etcd_peer_port: ports.etcd_peer,
        }
    }

    pub fn postgres_addr(&self) -> SocketAddr {
        self.addr(self.postgres_port)
    }

    pub fn patroni_addr(&self) -> SocketAddr {
        self.addr(self.patroni_port)
    }

    pub fn pgbouncer_addr(&self) -> SocketAddr {
        self.addr(self.pgbouncer_port)
    }

    pub fn etcd_addr(&self) -> SocketAddr {
        self.addr(self.etcd_port)
    }

    /// An address of this member without a listener.
    pub fn nowhere(&self) -> SocketAddr {
        self.addr(1)
    }

    /// For instance `http://127.0.7.1:18008`.
    pub fn patroni_url(&self) -> String {
        format!("http://{}", self.patroni_addr())
    }

    /// For instance `http://127.0.7.1:12379`.
    pub fn etcd_url(&self) -> String {
        format!("http://{}", self.etcd_addr())
    }

    /// A direct connection to this member's PostgreSQL, without a password.
    pub fn superuser_dsn(&self) -> String {
        format!("postgresql://{SUPERUSER}@{}/postgres", self.postgres_addr())
    }

    /// A direct connection to this member's PostgreSQL, as the application.
    pub fn app_dsn(&self) -> String {
        format!("postgresql://{APP}:{APP}@{}/{APP}", self.postgres_addr())
    }

    /// A direct connection to this member's PostgreSQL, as the user of health checks.
    pub fn check_dsn(&self) -> String {
        format!("postgresql://{CHECK}:{CHECK}@{}/postgres", self.postgres_addr())
    }

    /// A connection through this member's PgBouncer, as the application.
    pub fn pooled_dsn(&self) -> String {
        format!("postgresql://{APP}:{APP}@{}/{APP}", self.pgbouncer_addr())
    }

    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Patroni's log. PostgreSQL writes to the same file.
    pub fn patroni_log(&self) -> PathBuf {
        self.folder.join("patroni.log")
    }

    pub(crate) fn pgbouncer_ini(&self) -> PathBuf {
        self.folder.join("pgbouncer.ini")
    }

    fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(self.ip, port))
    }
}
