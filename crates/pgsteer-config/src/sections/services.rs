//! `[services.NAME]`: the ports that clients connect to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use pgsteer_core::claim::Role;
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::settings::defaults;
use pgsteer_core::settings::{OnPromotion, PoolerDown, ServiceConfig, Stick};

use super::{check, count};
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::{Field, Given};
use crate::key::{Key, SectionKeys};
use crate::kinds::{Bytes, Choice, Listen, Port, Table};
use crate::limits::{LAG_SECONDS, READ_LISTEN, SERVICES_MAX, WRITE_LISTEN};
use crate::origin::Origin;
use crate::range::{Seconds, Whole};
use crate::written::{Draft, Section};

/// The section of each service.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "The ports that clients connect to, each as [services.NAME]. Without any [services] there \
           are `write` and `read` as shown here; with one of them, there is only what is written. \
           Any other name is a service of your own, which needs `listen` and `role`. `--write` and \
           `--read` set `listen`, `--hold` sets `hold_seconds` of all services, and `--max-lag` a lag \
           limit of those for replicas.",
    keys: &[
        &LISTEN,
        &ROLE,
        &HOLD,
        &CONNECT_TIMEOUT,
        &MEMBER_SESSIONS_MAX,
        &SESSIONS_MAX,
        &POOLER_PORT,
        &POOLER_DOWN,
        &LAG_BYTES,
        &LAG,
        &FALLBACK,
        &STICK,
        &ON_PROMOTION,
        &TAGS,
    ],
    at_restart: false,
};

const SECTION: &str = "services";

/// The services that exist without any `[services]`, with the values that their names imply.
pub static USUAL: [(&str, &[(&str, &str)]); 2] = [
    ("write", &[("listen", "\"0.0.0.0:5000\""), ("role", "\"primary\""), ("hold_seconds", "30")]),
    ("read", &[("listen", "\"0.0.0.0:5001\""), ("role", "\"replica\""), ("hold_seconds", "10")]),
];

/// The address of the service.
pub static LISTEN: Key<Listen> = Key::new(SECTION, "listen", Listen)
    .example("\"0.0.0.0:5000\"")
    .unset("0.0.0.0:5000 for `write`, 0.0.0.0:5001 for `read`")
    .help("The address of the service.");

/// The role that the service requires.
pub static ROLE: Key<Choice<Role>> = Key::new(
    SECTION,
    "role",
    Choice {
        others: &[
            ("master", "primary"),
            ("leader", "primary"),
            ("slave", "replica"),
            ("standby", "replica"),
            ("secondary", "replica"),
        ],
        ..Choice::new(
            Role::Primary,
            &[Role::Primary, Role::Replica, Role::StandbyLeader],
            Role::as_str,
        )
    },
)
.example("\"primary\"")
.unset("`primary` for `write`, `replica` for `read`")
.help("The role that a member must have.");

/// The maximum time that a client waits for a member.
pub static HOLD: Key<Seconds> = Key::new(SECTION, "hold_seconds", Seconds::within(0, 3_600_000))
    .example("30")
    .unset("30 for writes, 10 for reads")
    .help("The time that a client waits for an available member before it gets an error.");

static CONNECT_TIMEOUT: Key<Seconds> = Key::new(
    SECTION,
    "connect_timeout_seconds",
    Seconds::within(100, 60_000).or_default(defaults::CONNECT_TIMEOUT),
)
.help("The time that a member has to accept a connection, before the next one is tried.");

/// The range of limits on sessions of one service, in total or at one member.
const SESSIONS: Whole = Whole::within(1, 1_000_000);

static MEMBER_SESSIONS_MAX: Key<Whole> = Key::new(SECTION, "member_sessions_max", SESSIONS)
    .example("100")
    .unset("no limit")
    .help(
        "Sessions at one member. A client beyond it waits in a queue, first come, first served, for \
         hold_seconds at most. A member whose max_connections are used up makes clients wait as well.",
    );

static SESSIONS_MAX: Key<Whole> = Key::new(SECTION, "sessions_max", SESSIONS)
    .example("200")
    .unset("no limit")
    .help("Sessions at all members together. A client beyond it waits in the same queue.");

static POOLER_PORT: Key<Port> = Key::new(SECTION, "pooler_port", Port)
    .example("6432")
    .unset("PostgreSQL itself")
    .help("Connect to the PgBouncer on this port of the member.");

static POOLER_DOWN: Key<Choice<PoolerDown>> = Key::new(
    SECTION,
    "pooler_down",
    Choice::new(PoolerDown::Shut, &[PoolerDown::Shut, PoolerDown::Bypass], PoolerDown::as_str),
)
.example("\"bypass\"")
.unset("`shut`")
.help(
    "While that PgBouncer is down, or does not lead to its member: `shut`, the member gets no new \
     sessions; or `bypass`, clients are routed to PostgreSQL itself until PgBouncer is healthy \
     again. A PgBouncer that is paused or full is not down: clients wait in it, for two minutes. \
     After that it counts as down.",
);

/// The lag limit in bytes.
pub static LAG_BYTES: Key<Bytes> = Key::new(SECTION, "lag_bytes_max", Bytes)
    .example("\"16MB\"")
    .unset("no limit")
    .help("Replicas that are farther behind get no new sessions.")
    .for_replicas();

/// The lag limit in time.
pub static LAG: Key<Seconds> = Key::new(SECTION, "lag_seconds_max", LAG_SECONDS)
    .example("10")
    .unset("no limit")
    .help("The same in time. It needs [check].")
    .for_replicas();

static FALLBACK: Key<Choice<bool>> = Key::new(
    SECTION,
    "fallback",
    Choice {
        others: &[("master", "primary")],
        ..Choice::new(false, &[true, false], |primary| if primary { "primary" } else { "none" })
    },
)
.example("\"primary\"")
.help("The member that serves while no replica is available: `primary`, or `none`.")
.for_replicas();

static STICK: Key<Choice<Stick>> = Key::new(
    SECTION,
    "stick",
    Choice {
        others: &[("source", "address")],
        ..Choice::new(Stick::None, &[Stick::None, Stick::Address], Stick::as_str)
    },
)
.example("\"address\"")
.help(
    "`none`: each connection goes to the replica with the fewest sessions. `address`: all \
     connections of one client address go to one replica while it is available. `pg_dump -j` needs it, \
     and a client with TLS that cancels queries. Clients behind NAT, or behind an HAProxy, have one \
     address together.",
)
.for_replicas();

static ON_PROMOTION: Key<Choice<OnPromotion>> = Key::new(
    SECTION,
    "on_promotion",
    Choice::new(
        OnPromotion::Keep,
        &[OnPromotion::Keep, OnPromotion::End],
        OnPromotion::as_str,
    ),
)
.example("\"end\"")
.help(
    "What happens to the sessions at a replica that is promoted: `keep`, they continue at the primary; \
     or `end`, they are ended with 57P01, and the clients connect to a replica again.",
)
.for_replicas();

static TAGS: Key<Table> = Key::new(SECTION, "tags", Table { of: "tags" })
    .example("{ region = \"west\" }")
    .unset("any member")
    .help("Only members with these tags in their Patroni configuration.")
    .for_replicas();

/// Returns the role as written, or the one that the name `write` or `read` implies.
pub fn role_meant(name: &ServiceName, service: &Section) -> Option<Role> {
    let role = service.get(&ROLE);
    match (role.given(), name.as_str()) {
        (Some(given), _) => Some(given.value),
        (None, _) if role.is_wrong() => None,
        (None, "write") => Some(Role::Primary),
        (None, "read") => Some(Role::Replica),
        (None, _) => None,
    }
}

/// Returns the address and its place; `write` and `read` have a default address.
pub fn listen_meant(name: &ServiceName, service: &Section) -> Option<Given<SocketAddr>> {
    let listen = service.get(&LISTEN);
    let default = match name.as_str() {
        "write" => WRITE_LISTEN,
        "read" => READ_LISTEN,
        _ => return listen.given().cloned(),
    };
    if !listen.is_absent() {
        return listen.given().cloned();
    }
    Some(Given { value: default, origin: Origin::Default(format!("services.{name}.listen")) })
}

/// Returns the services with their defaults; none if an error makes one unknown.
pub fn finish(
    draft: &Draft,
    errors: &mut ConfigErrors,
) -> Option<BTreeMap<ServiceName, ServiceConfig>> {
    let given = draft.services.given()?;
    check_count(given.value.len(), &given.origin, errors);
    let mut services = BTreeMap::new();
    let mut complete = true;
    for (name, service) in &given.value {
        check_role_fits(name, &service.value, errors);
        check_pooler(&service.value, errors);
        check_lag_can_be_known(draft, name, &service.value, errors);
        if draft.is_listed() {
            check_listed(draft, name, service, errors);
        }
        match finish_one(name, service, errors) {
            Some(meant) => drop(services.insert(name.clone(), meant)),
            None => complete = false,
        }
    }
    complete.then_some(services)
}

fn finish_one(
    name: &ServiceName,
    given: &Given<Section>,
    errors: &mut ConfigErrors,
) -> Option<ServiceConfig> {
    let keys = &given.value;
    let listen = listen_meant(name, keys);
    if listen.is_none() && keys.get(&LISTEN).is_absent() {
        let example = "listen = \"0.0.0.0:5002\"";
        errors.push(given.origin.clone(), Conflict::Missing { key: "listen", example });
    }
    let role = role_meant(name, keys);
    if role.is_none() && keys.get(&ROLE).is_absent() {
        let example = "role = \"replica\"";
        errors.push(given.origin.clone(), Conflict::Missing { key: "role", example });
    }
    let default = ServiceConfig::new(listen?.value, role?);
    Some(ServiceConfig {
        hold: keys.get(&HOLD).or(default.hold),
        lag_bytes_max: keys.get(&LAG_BYTES).value(),
        lag_max: keys.get(&LAG).value(),
        fallback_primary: keys.or_usual(&FALLBACK),
        tags: keys.get(&TAGS).or(BTreeMap::new()),
        pooler_port: keys.get(&POOLER_PORT).value(),
        pooler_down: keys.or_usual(&POOLER_DOWN),
        connect_timeout: keys.or_usual(&CONNECT_TIMEOUT),
        member_sessions_max: count(&keys.get(&MEMBER_SESSIONS_MAX)),
        sessions_max: count(&keys.get(&SESSIONS_MAX)),
        stick: keys.or_usual(&STICK),
        on_promotion: keys.or_usual(&ON_PROMOTION),
        ..default
    })
}

fn check_count(found: usize, origin: &Origin, errors: &mut ConfigErrors) {
    let max = SERVICES_MAX;
    if found == 0 {
        let example = "[services.write]; without [services] there are write and read";
        errors.push(origin.clone(), Conflict::Empty { example });
    }
    if found > max {
        errors.push(origin.clone(), Conflict::TooMany { found, max });
    }
}

/// Checks that lag limits and fallbacks are only at services for replicas.
fn check_role_fits(name: &ServiceName, service: &Section, errors: &mut ConfigErrors) {
    let Some(role) = role_meant(name, service).filter(|role| *role != Role::Replica) else {
        return;
    };
    let lag_bytes = service.get(&LAG_BYTES).given().map(|given| given.origin.clone());
    let lag = service.get(&LAG).given().map(|given| given.origin.clone());
    for origin in [lag_bytes, lag].into_iter().flatten() {
        errors.push(origin, Conflict::LagOnRole(role));
    }
    if let Some(fallback) = service.get(&FALLBACK).given().filter(|given| given.value) {
        errors.push(fallback.origin.clone(), Conflict::FallbackOnRole(role));
    }
    if let Some(given) = service.get(&ON_PROMOTION).given() {
        errors.push(given.origin.clone(), Conflict::PromotionOnRole(role));
    }
}

/// Checks that a lag limit in time can be measured. Only SQL measures the lag in time, so without a
/// check login the limit would exclude every replica. Another check reports listed members without
/// a login.
fn check_lag_can_be_known(
    draft: &Draft,
    name: &ServiceName,
    service: &Section,
    errors: &mut ConfigErrors,
) {
    let is_for_replicas = role_meant(name, service) == Some(Role::Replica);
    let lacks_login = draft.section(check::SECTION).is_absent() && !draft.is_listed();
    let lag = service.get(&LAG);
    if let Some(given) = lag.given().filter(|_| is_for_replicas && lacks_login) {
        errors.push(given.origin.clone(), Conflict::LagTimeWithoutLogin);
    }
}

/// Checks that `pooler_down` has a pooler.
fn check_pooler(service: &Section, errors: &mut ConfigErrors) {
    let down = service.get(&POOLER_DOWN);
    if let (Some(given), true) = (down.given(), service.get(&POOLER_PORT).is_absent()) {
        errors.push(given.origin.clone(), Conflict::PoolerDownWithoutPort);
    }
}

/// Checks the role of a service with listed members: SQL distinguishes only primary and replica.
fn check_listed(
    draft: &Draft,
    name: &ServiceName,
    service: &Given<Section>,
    errors: &mut ConfigErrors,
) {
    let keys = &service.value;
    let role = role_meant(name, keys);
    if let (Some(Role::StandbyLeader), Some(given)) = (role, keys.get(&ROLE).given()) {
        errors.push(given.origin.clone(), Conflict::StandbyLeaderWithoutPatroni);
    }
    if let Some(tags) = keys.get(&TAGS).given().filter(|given| !given.value.is_empty()) {
        errors.push(tags.origin.clone(), Conflict::TagsWithoutPatroni);
    }
    let falls_back = |fallback: Field<bool>| fallback.is_wrong() || fallback.or(false);
    if let (Some(Role::Replica), Some(only)) = (role, only_member(draft))
        && !falls_back(keys.get(&FALLBACK))
    {
        errors.push(service.origin.clone(), Conflict::NoReplica { only });
    }
}

fn only_member(draft: &Draft) -> Option<MemberName> {
    match draft.members.given()?.value.as_slice() {
        [(only, _)] => Some(only.clone()),
        _ => None,
    }
}
