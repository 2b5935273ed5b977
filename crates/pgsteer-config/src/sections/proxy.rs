//! `[proxy]`: limits and timeouts of the proxy.

use pgsteer_core::settings::ProxyConfig;

use super::count;
use crate::key::{Key, SectionKeys};
use crate::range::{Seconds, Whole};
use crate::written::Draft;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "Limits and timeouts of the proxy.",
    keys: &[
        &WORKERS,
        &SESSIONS_MAX,
        &SESSIONS_PER_ADDRESS_MAX,
        &LOGIN_TIMEOUT,
        &SHUTDOWN_GRACE,
        &KEEPALIVE,
        &KEEPALIVE_INTERVAL,
        &USER_TIMEOUT,
    ],
    at_restart: true,
};

const SECTION: &str = "proxy";

const USUAL: ProxyConfig = ProxyConfig::DEFAULT;

static WORKERS: Key<Whole> = Key::new(SECTION, "workers", Whole::within(1, 256))
    .example("2")
    .unset("one per core")
    .help("Threads that serve clients.");

static SESSIONS_MAX: Key<Whole> =
    Key::new(SECTION, "sessions_max", Whole::within(1, 1_000_000).or(USUAL.sessions_max as u64))
        .help("Client connections at once, over all services.");

static SESSIONS_PER_ADDRESS_MAX: Key<Whole> =
    Key::new(SECTION, "sessions_per_address_max", Whole::within(1, 1_000_000))
        .example("500")
        .unset("nine tenths of `sessions_max`")
        .help(
            "Client connections of one address at once, so that one host cannot take every place. \
             Clients behind NAT, or behind an HAProxy, have one address together. With sessions_max \
             or more there is no such limit.",
        );

static LOGIN_TIMEOUT: Key<Seconds> = Key::new(
    SECTION,
    "login_timeout_seconds",
    Seconds::within(1_000, 600_000).or_default(USUAL.login_timeout),
)
.help(
    "The time that a client has for its startup packet or its TLS hello, and for its login. At \
     sessions_max or sessions_per_address_max the oldest connection that has sent no whole packet \
     for a second is closed earlier, and its place goes to the new client.",
);

static SHUTDOWN_GRACE: Key<Seconds> = Key::new(
    SECTION,
    "shutdown_grace_seconds",
    Seconds::within(0, 86_400_000).or_default(USUAL.shutdown_grace),
)
.help("The time that sessions may continue after SIGTERM.");

static KEEPALIVE: Key<Seconds> = Key::new(
    SECTION,
    "keepalive_seconds",
    Seconds::within(1_000, 7_200_000).or_default(USUAL.keepalive),
)
.help("Idle time before TCP keepalive probes, towards clients and members.");

static KEEPALIVE_INTERVAL: Key<Seconds> = Key::new(
    SECTION,
    "keepalive_interval_seconds",
    Seconds::within(1_000, 600_000),
)
.example("5")
.unset("a third of `keepalive_seconds`")
.help(
    "Time between TCP keepalive probes. A connection to a host that does not answer is closed \
             after keepalive_seconds and three probes.",
);

static USER_TIMEOUT: Key<Seconds> = Key::new(
    SECTION,
    "user_timeout_seconds",
    Seconds::within(0, 3_600_000).or_default(USUAL.user_timeout),
)
.help(
    "The time that a client may leave data unacknowledged. It also closes the connections of \
     clients that are alive and read nothing for this time; 0 leaves it to the system.",
);

/// Returns the settings of the section.
pub fn finish(draft: &Draft) -> ProxyConfig {
    let keys = draft.keys(SECTION);
    ProxyConfig {
        workers: count(&keys.get(&WORKERS)),
        sessions_max: count(&keys.get(&SESSIONS_MAX)).unwrap_or(USUAL.sessions_max),
        sessions_per_address_max: count(&keys.get(&SESSIONS_PER_ADDRESS_MAX)),
        login_timeout: keys.or_usual(&LOGIN_TIMEOUT),
        shutdown_grace: keys.or_usual(&SHUTDOWN_GRACE),
        keepalive: keys.or_usual(&KEEPALIVE),
        keepalive_interval: keys.get(&KEEPALIVE_INTERVAL).value(),
        user_timeout: keys.or_usual(&USER_TIMEOUT),
    }
}
