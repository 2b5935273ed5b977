//! `[http]`: the status pages.

use std::path::PathBuf;

use pgsteer_core::settings::{HttpConfig, Network, PeersConfig, Protect};

use super::check_pair;
use crate::address::pgsteer_url;
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::{Field, Given};
use crate::key::{Command, Flag, Key, SectionKeys, Usual as _};
use crate::kinds::{Choice, List, ListenOrNone, Text};
use crate::limits::{HTTP_LISTEN, PEERS_MAX};
use crate::plain;
use crate::written::Draft;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "Status pages, metrics and health checks by HTTP.",
    keys: &[
        &LISTEN,
        &ALLOW,
        &HOSTS,
        &LOGIN_FILE,
        &TOKEN_FILE,
        &PROTECT,
        &CERT_FILE,
        &KEY_FILE,
        &PEERS,
        &PEERS_TOKEN_FILE,
        &PEERS_CA_FILE,
    ],
    at_restart: true,
};

const SECTION: &str = "http";

/// The address of the pages.
pub static LISTEN: Key<ListenOrNone> =
    Key::new(SECTION, "listen", ListenOrNone { usual: HTTP_LISTEN })
        .example("\"0.0.0.0:7000\"")
        .help("Where status, health and metrics are; false for none. `pgsteer agent` has none unless it is set.")
        .flags(&[
            Flag::new(Command::Run, "--http", "ADDR").help(
                "Where status, health and metrics are, or `none` [default: 0.0.0.0:7000]",
            ),
            Flag::new(Command::Agent, "--http", "ADDR")
                .help("Where status, health and metrics are [default: none]"),
        ]);

static ALLOW: Key<List<Network>> =
    Key::new(SECTION, "allow", List::new("networks", plain::network))
        .example("[\"127.0.0.1\", \"10.0.0.0/8\"]")
        .unset("all addresses")
        .help("The networks whose clients get answers; others get 403.");

static HOSTS: Key<List<String>> = Key::new(SECTION, "hosts", List::new("names", plain::name))
    .example("[\"pgsteer.example\"]")
    .unset("all names")
    .help(
        "The names by which browsers reach the pages. A request for another name gets 403, so that a \
         foreign web page cannot read them by a name of its own (DNS rebinding). Addresses and \
         localhost are always accepted.",
    );

static LOGIN_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "login_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/http-logins\"")
    .unset("no login")
    .help("File with a line `user:password` for each login (basic authentication).");

static TOKEN_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "token_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/http-token\"")
    .unset("no token")
    .help("File whose first line is the token for `Authorization: Bearer`.");

static PEERS: Key<List<String>> = Key::new(SECTION, "peers", List::new("URLs", pgsteer_url))
    .example("[\"http://10.0.0.21:7000\"]")
    .unset("none")
    .help(
        "Other pgsteers, at most 16, which the page and `pgsteer status` list with one line each. They are \
         asked every two seconds.",
    );

static PEERS_TOKEN_FILE: Key<Text<PathBuf>> = Key::new(
    SECTION,
    "peers_token_file",
    Text::<PathBuf>::file(),
)
.example("\"/etc/pgsteer/peers-token\"")
.unset("the one of `token_file`")
.help(
    "File whose first line is the token that is sent to the `peers`. It is readable in the network \
             unless their URLs begin with https.",
);

static PEERS_CA_FILE: Key<Text<PathBuf>> =
    Key::new(SECTION, "peers_ca_file", Text::<PathBuf>::file())
        .example("\"/etc/pgsteer/ca.pem\"")
        .unset("the authorities of the system")
        .help("Certificates, PEM, of the authorities that may have signed those of the `peers`.");

static PROTECT: Key<Choice<Protect>> = Key::new(
    SECTION,
    "protect",
    Choice::new(
        Protect::Metrics,
        &[Protect::Pages, Protect::Metrics, Protect::All],
        Protect::as_str,
    ),
)
.help(
    "What `allow` and the logins protect: `pages` (status and history), `metrics` (pages and metrics) \
     or `all` (health checks too).",
);

static CERT_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "cert_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/http.pem\"")
    .unset("plain HTTP")
    .help("Certificate of the pages, PEM, with the intermediate ones. It needs `key_file`.");

static KEY_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "key_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/http.key\"")
    .help("Key of that certificate, PEM.");

/// Returns the settings of the section; none if it is disabled.
pub fn finish(draft: &Draft, errors: &mut ConfigErrors) -> Option<HttpConfig> {
    let listen = draft.get(&LISTEN).or(Some(HTTP_LISTEN))?;
    let (cert, key) = (draft.get(&CERT_FILE), draft.get(&KEY_FILE));
    check_pair((CERT_FILE.name, &cert), (KEY_FILE.name, &key), errors);
    let token_file = draft.get(&TOKEN_FILE).value();
    Some(HttpConfig {
        listen,
        allow: values(draft.get(&ALLOW)),
        hosts: values(draft.get(&HOSTS)),
        peers: PeersConfig {
            urls: peer_urls(draft, errors),
            token_file: draft.get(&PEERS_TOKEN_FILE).value().or_else(|| token_file.clone()),
            ca_file: draft.get(&PEERS_CA_FILE).value(),
        },
        token_file,
        login_file: draft.get(&LOGIN_FILE).value(),
        protect: draft.get(&PROTECT).or(PROTECT.kind.usual()),
        tls: cert.value().zip(key.value()),
    })
}

fn peer_urls(draft: &Draft, errors: &mut ConfigErrors) -> Vec<String> {
    let field = draft.get(&PEERS);
    if let Some(given) = field.given()
        && given.value.len() > PEERS_MAX
    {
        let (found, max) = (given.value.len(), PEERS_MAX);
        errors.push(given.origin.clone(), Conflict::TooMany { found, max });
    }
    values(field)
}

fn values<T>(field: Field<Vec<Given<T>>>) -> Vec<T> {
    field.value().unwrap_or_default().into_iter().map(|given| given.value).collect()
}
