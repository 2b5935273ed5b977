//! `[haproxy]`: the HAProxys that pgsteer controls by their Runtime API.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::{HaproxyConfig, HaproxySocket, ServiceConfig};
use pgsteer_core::text::clean;

use super::check_distinct;
use crate::address;
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::{Field, Given};
use crate::key::{Command, Flag, Key, SectionKeys};
use crate::kinds::{List, Table, Text};
use crate::limits::HAPROXYS_MAX;
use crate::plain;
use crate::range::Seconds;
use crate::written::Draft;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "The HAProxys that pgsteer controls by their Runtime API (docs/HAPROXY.md). Each change of a \
           gate is written to their sockets at once: the weight of the server is 0 while the gate is \
           not open, and sessions end where they have to. HAProxy's own health checks continue, and an \
           administrator's `maint` and `drain` are not changed. A section that is there needs `sockets`.",
    keys: &[&SOCKETS, &BACKENDS, &STATE_FILE, &ADD_SERVERS, &TIMEOUT],
    at_restart: false,
};

/// The name of the section.
pub const SECTION: &str = "haproxy";

const SOCKETS_EXAMPLE: &str = "sockets = [\"/run/haproxy/admin.sock\"]";

static SOCKETS: Key<List<HaproxySocket>> =
    Key::new(SECTION, "sockets", List::new("paths or HOST:PORT", address::haproxy_socket))
        .example("[\"/run/haproxy/admin.sock\"]")
        .help(
            "The `stats socket` of each HAProxy, with `level admin`: the path of a Unix socket, or \
             HOST:PORT. At most 16.",
        )
        .flags(&[Flag::new(Command::Both, "--haproxy", "SOCKET").repeated().help(
            "The `stats socket` (level admin) of a HAProxy to steer: a path or HOST:PORT. May be \
             repeated",
        )]);

static BACKENDS: Key<Table> = Key::new(SECTION, "backends", Table { of: "backends by service" })
    .example("{ write = \"pg_write\", read = \"pg_read\" }")
    .unset("the backend with the name of the service")
    .help(
        "The backend (or `listen`) of a service, where it has another name. Its servers are found by \
         the name of the member, or else by its address.",
    );

static STATE_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "state_file", Text::<PathBuf>::file())
    .example("\"/run/haproxy/pgsteer-state\"")
    .help(
        "HAProxy's `server-state-file`, where there is one socket: pgsteer keeps it up to date, so that \
         a HAProxy that is reloaded has all weights before its first client. It is written beside \
         and renamed, so pgsteer must be able to write to the directory.",
    );

static ADD_SERVERS: Key<Text<String>> = Key::new(
    SECTION,
    "add_servers",
    Text::new("keywords of a `server` line", plain::server_keywords),
)
.example("\"check port 8008 inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\"")
.unset("no server is added")
.help(
    "What follows the address of a server that pgsteer adds (`add server`) for a member without one, \
     and removes when the member has left. HAProxy does not apply `default-server` to it, needs a \
     dynamic `balance` algorithm, and forgets it at a reload; then pgsteer adds it again.",
);

static TIMEOUT: Key<Seconds> =
    Key::new(SECTION, "timeout_seconds", Seconds::within(50, 10_000).or(1_000))
        .help("The time that HAProxy has for one answer.");

/// Returns the settings of the section; none if it is absent or wrong.
pub fn finish(
    draft: &Draft,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    errors: &mut ConfigErrors,
) -> Option<HaproxyConfig> {
    let given = draft.section(SECTION).given()?;
    let keys = &given.value;
    let backends = backends(&keys.get(&BACKENDS), services, errors);
    let sockets = keys.get(&SOCKETS);
    if sockets.is_absent() {
        let missing = Conflict::Missing { key: "sockets", example: SOCKETS_EXAMPLE };
        errors.push(given.origin.clone(), missing);
    }
    let sockets = sockets.given()?;
    let found = sockets.value.len();
    if found == 0 {
        errors.push(sockets.origin.clone(), Conflict::Empty { example: SOCKETS_EXAMPLE });
    }
    if found > HAPROXYS_MAX {
        errors.push(sockets.origin.clone(), Conflict::TooMany { found, max: HAPROXYS_MAX });
    }
    check_distinct(sockets.value.iter().map(|socket| (&socket.value, &socket.origin)), errors);
    let state_file = keys.get(&STATE_FILE);
    if let Some(file) = state_file.given().filter(|_| found > 1) {
        errors.push(file.origin.clone(), Conflict::StateFileOfSeveral);
    }
    Some(HaproxyConfig {
        sockets: sockets.value.iter().map(|socket| socket.value.clone()).collect(),
        backends,
        state_file: state_file.value(),
        add_servers: keys.get(&ADD_SERVERS).value(),
        timeout: keys.or_usual(&TIMEOUT),
    })
}

fn backends(
    field: &Field<BTreeMap<String, String>>,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    errors: &mut ConfigErrors,
) -> BTreeMap<ServiceName, String> {
    let mut backends = BTreeMap::new();
    let Some(Given { value, origin }) = field.given() else { return backends };
    for (service, backend) in value {
        let known = services.keys().find(|name| name.as_str() == service);
        let other = backends.iter().find(|(_, other)| *other == backend);
        let conflict = match (known, other) {
            _ if !is_backend(backend) => Conflict::NoBackendName(shown(backend)),
            (None, _) => Conflict::BackendOfNoService(shown(service)),
            (_, Some((other, _))) => {
                Conflict::SameBackend { backend: shown(backend), other: other.clone() }
            }
            (Some(known), None) => {
                backends.insert(known.clone(), backend.clone());
                continue;
            }
        };
        errors.push(origin.clone(), conflict);
    }
    backends
}

/// The text, safe to show.
fn shown(text: &str) -> String {
    clean(text).into_owned()
}

/// Returns true if HAProxy accepts the text as the name of a proxy. It could not harm a command then.
fn is_backend(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    (1..=255).contains(&text.len()) && text.chars().all(fits)
}
