//! The configuration as written: what the file and the flags say, and where they say it.
//!
//! Each value is checked by itself, nothing is filled in yet, and a value that was wrong is
//! remembered as such, so that nobody complains later that it is missing.
//! [`Draft::finish`] makes a [`Config`](pgsteer_core::settings::Config) of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Role;
use pgsteer_core::names::{ClusterName, Endpoint, MemberName, ServiceName};
use pgsteer_core::settings::{
    OnPromotion, PoolerDown, RequireAuth, SplitBrain, SslMode, StateDirectory, Stick, Verify,
    Vocabulary, Weight,
};

use crate::error::Place;
use crate::limits::{READ_LISTEN, WRITE_LISTEN};
use crate::purpose::Purpose;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub place: Place,
}

/// What was written for one key: nothing, a value, or something wrong that has been reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<T> {
    given: Option<Given<T>>,
    wrong: bool,
}

impl<T> Default for Field<T> {
    fn default() -> Field<T> {
        Field { given: None, wrong: false }
    }
}

impl<T> Field<T> {
    /// A value written at `place`.
    pub fn new(value: T, place: Place) -> Field<T> {
        Field { given: Some(Given { value, place }), wrong: false }
    }

    /// Something wrong, which has been reported.
    pub fn wrong() -> Field<T> {
        Field { given: None, wrong: true }
    }

    /// What `make` makes of the value.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Field<U> {
        let given = self.given.map(|Given { value, place }| Given { value: make(value), place });
        Field { given, wrong: self.wrong }
    }

    /// Nothing was written.
    pub fn is_absent(&self) -> bool {
        self.given.is_none() && !self.wrong
    }

    /// Something wrong was written, and has been reported.
    pub fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// The value with its place, if there is a right one.
    pub fn given(&self) -> Option<&Given<T>> {
        self.given.as_ref()
    }

    /// The value, if there is a right one.
    pub fn value(self) -> Option<T> {
        self.given.map(|given| given.value)
    }

    /// The value, or `default` if there is no right one.
    pub fn or(&self, default: T) -> T
    where
        T: Clone,
    {
        self.clone().value().unwrap_or(default)
    }

    /// The value to change; `empty` written at `place` if there is none yet.
    pub fn get_or_insert(&mut self, empty: impl FnOnce() -> T, place: Place) -> &mut T {
        let given = self.given.get_or_insert_with(|| Given { value: empty(), place });
        &mut given.value
    }
}

/// All that was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// What it is wanted for. No text says that, the command does.
    pub purpose: Purpose,
    /// What errors call the file that was read; none where there is no file.
    pub file: Option<Arc<str>>,
    /// `[cluster]`.
    pub cluster: ClusterDraft,
    /// `[patroni]`.
    pub patroni: Field<PatroniDraft>,
    /// `[members]`.
    pub members: Field<Vec<MemberDraft>>,
    /// `[etcd]`.
    pub etcd: Field<EtcdDraft>,
    /// `[check]`.
    pub check: Field<CheckDraft>,
    /// `[services]`. Where it is absent, there are the services `write` and `read`.
    pub services: Field<Services>,
    /// `[http]`: where the status pages listen; none switches them off.
    pub http: Field<Option<SocketAddr>>,
    /// `[agent]`: without it nobody is answered.
    pub agent: Field<AgentDraft>,
    /// `[proxy]`.
    pub proxy: ProxyDraft,
}

/// The services by name.
pub type Services = BTreeMap<ServiceName, ServiceDraft>;

impl Draft {
    /// The services as written, or `write` and `read` where nothing was.
    pub fn services_mut(&mut self) -> &mut Services {
        let default = Place::Default("services".to_owned());
        self.services.get_or_insert(default_services, default)
    }
}

fn default_services() -> Services {
    ["write", "read"]
        .into_iter()
        .filter_map(|name| ServiceName::new(name).ok())
        .map(|name| {
            let service = ServiceDraft::by_default(&name);
            (name, service)
        })
        .collect()
}

/// `[cluster]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterDraft {
    /// `name`.
    pub name: Field<ClusterName>,
    /// `split_brain`.
    pub split_brain: Field<SplitBrain>,
    /// `patroni_loss_grace_seconds`.
    pub patroni_loss_grace: Field<Duration>,
    /// `silence_seconds`.
    pub silence: Field<Duration>,
    /// `local`.
    pub local: Field<MemberName>,
    /// `state_directory`.
    pub state_directory: Field<StateDirectory>,
}

/// `[patroni]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PatroniDraft {
    /// `urls`, each with its port.
    pub urls: Field<Vec<Given<String>>>,
    /// `verify`.
    pub verify: Field<Verify>,
    /// `ca_file`.
    pub ca_file: Field<PathBuf>,
    /// `cert_file`.
    pub cert_file: Field<PathBuf>,
    /// `key_file`.
    pub key_file: Field<PathBuf>,
    /// `timeout_seconds`.
    pub timeout: Field<Duration>,
    /// `scope`.
    pub scope: Field<String>,
    /// `group`.
    pub group: Field<u64>,
    /// `system_identifier`.
    pub system_identifier: Field<String>,
}

/// `[etcd]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EtcdDraft {
    /// `urls`, each with its port.
    pub urls: Field<Vec<Given<String>>>,
    /// `namespace`.
    pub namespace: Field<String>,
    /// `scope`.
    pub scope: Field<String>,
    /// `username`.
    pub username: Field<String>,
    /// `password_file`.
    pub password_file: Field<PathBuf>,
    /// `verify`.
    pub verify: Field<Verify>,
    /// `ca_file`.
    pub ca_file: Field<PathBuf>,
    /// `cert_file`.
    pub cert_file: Field<PathBuf>,
    /// `key_file`.
    pub key_file: Field<PathBuf>,
    /// `timeout_seconds`.
    pub timeout: Field<Duration>,
}

/// `[members.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberDraft {
    /// `NAME`.
    pub name: MemberName,
    /// Where it is named.
    pub place: Place,
    /// `postgres`.
    pub postgres: Field<Endpoint>,
}

/// `[check]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckDraft {
    /// `user`.
    pub user: Field<String>,
    /// `dbname`.
    pub dbname: Field<String>,
    /// `password_file`.
    pub password_file: Field<PathBuf>,
    /// `sslmode`.
    pub sslmode: Field<SslMode>,
    /// `require_auth`.
    pub require_auth: Field<RequireAuth>,
    /// `ca_file`.
    pub ca_file: Field<PathBuf>,
    /// `timeout_seconds`.
    pub timeout: Field<Duration>,
}

/// `[services.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceDraft {
    /// Where it is named.
    pub place: Place,
    /// `listen`.
    pub listen: Field<SocketAddr>,
    /// `role`.
    pub role: Field<Role>,
    /// `hold_seconds`.
    pub hold: Field<Duration>,
    /// `lag_bytes_max`.
    pub lag_bytes: Field<u64>,
    /// `lag_seconds_max`.
    pub lag: Field<Duration>,
    /// `fallback`: the primary serves while no replica is open.
    pub fallback: Field<bool>,
    /// `tags`.
    pub tags: Field<BTreeMap<String, String>>,
    /// `pooler_port`.
    pub pooler_port: Field<u16>,
    /// `pooler_down`.
    pub pooler_down: Field<PoolerDown>,
    /// `connect_timeout_seconds`.
    pub connect_timeout: Field<Duration>,
    /// `member_sessions_max`.
    pub member_sessions_max: Field<u64>,
    /// `sessions_max`.
    pub sessions_max: Field<u64>,
    /// `stick`.
    pub stick: Field<Stick>,
    /// `on_promotion`.
    pub on_promotion: Field<OnPromotion>,
}

impl ServiceDraft {
    /// A service of which only the name is said, at `place`.
    pub fn new(place: Place) -> ServiceDraft {
        ServiceDraft {
            place,
            listen: Field::default(),
            role: Field::default(),
            hold: Field::default(),
            lag_bytes: Field::default(),
            lag: Field::default(),
            fallback: Field::default(),
            tags: Field::default(),
            pooler_port: Field::default(),
            pooler_down: Field::default(),
            connect_timeout: Field::default(),
            member_sessions_max: Field::default(),
            sessions_max: Field::default(),
            stick: Field::default(),
            on_promotion: Field::default(),
        }
    }

    /// A service that nobody wrote down.
    pub fn by_default(name: &ServiceName) -> ServiceDraft {
        ServiceDraft::new(Place::Default(format!("services.{name}")))
    }

    /// The role as written, or the one that the name `write` or `read` implies.
    pub fn role_meant(&self, name: &ServiceName) -> Option<Role> {
        match (self.role.given(), name.as_str()) {
            (Some(given), _) => Some(given.value),
            (None, _) if self.role.is_wrong() => None,
            (None, "write") => Some(Role::Primary),
            (None, "read") => Some(Role::Replica),
            (None, _) => None,
        }
    }

    /// Where it listens and who says so; `write` and `read` have an address of their own.
    pub fn listen_meant(&self, name: &ServiceName) -> Option<Given<SocketAddr>> {
        let default = match name.as_str() {
            "write" => WRITE_LISTEN,
            "read" => READ_LISTEN,
            _ => return self.listen.given().cloned(),
        };
        if !self.listen.is_absent() {
            return self.listen.given().cloned();
        }
        Some(Given { value: default, place: Place::Default(format!("services.{name}.listen")) })
    }
}

/// `[agent]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentDraft {
    /// `listen`; none switches the agent off.
    pub listen: Field<Option<SocketAddr>>,
    /// `vocabulary`.
    pub vocabulary: Field<Vocabulary>,
    /// `default`.
    pub default: Field<String>,
    /// `pooler_port`.
    pub pooler_port: Field<u16>,
    /// `line_wait_seconds`.
    pub line_wait: Field<Duration>,
    /// `weight`.
    pub weight: Field<Weight>,
    /// `maxconn`.
    pub maxconn: Field<u64>,
}

/// `[proxy]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyDraft {
    /// `workers`.
    pub workers: Field<u64>,
    /// `sessions_max`.
    pub sessions_max: Field<u64>,
    /// `sessions_per_address_max`.
    pub sessions_per_address_max: Field<u64>,
    /// `login_timeout_seconds`.
    pub login_timeout: Field<Duration>,
    /// `shutdown_grace_seconds`.
    pub shutdown_grace: Field<Duration>,
    /// `keepalive_seconds`.
    pub keepalive: Field<Duration>,
    /// `user_timeout_seconds`.
    pub user_timeout: Field<Duration>,
}
