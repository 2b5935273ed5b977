//! `[patroni]`: the source of the members.

use std::path::PathBuf;

use pgsteer_core::identity::Identity;
use pgsteer_core::settings::{PatroniConfig, Verify};

use super::{check_ca_file, check_count, check_distinct, check_pair};
use crate::address::patroni_url;
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::Given;
use crate::key::{Command, Flag, Key, SectionKeys};
use crate::kinds::{Choice, List, Text};
use crate::plain;
use crate::range::{Seconds, Whole};
use crate::written::Section;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "The source of the members: either [patroni] or [members].",
    keys: &[
        &URLS,
        &VERIFY,
        &CA_FILE,
        &CERT_FILE,
        &KEY_FILE,
        &TIMEOUT,
        &SCOPE,
        &GROUP,
        &SYSTEM_IDENTIFIER,
    ],
    at_restart: false,
};

/// The name of the section.
pub const SECTION: &str = "patroni";

const URLS_EXAMPLE: &str = "urls = [\"http://10.0.0.11:8008\"]";

/// The REST APIs.
pub static URLS: Key<List<String>> = Key::new(SECTION, "urls", List::new("URLs", patroni_url))
    .example("[\"http://10.0.0.11:8008\"]")
    .help("One Patroni is enough; with several, pgsteer can start while one is down.")
    .flags(&[Flag::new(Command::Run, "--patroni", "URL")
        .repeated()
        .help("REST API of any one Patroni; the members are found through it. May be repeated")]);

static VERIFY: Key<Choice<Verify>> = Key::new(SECTION, "verify", VERIFIES).help(
    "What is verified of a certificate, for https: `full`, a trusted authority has signed it and it \
     names the host; `ca`, the first alone; `none`, nothing.",
);

/// How much of a certificate is verified.
pub const VERIFIES: Choice<Verify> = Choice {
    others: &[
        ("verify-full", "full"),
        ("required", "full"),
        ("verify-ca", "ca"),
        ("require", "none"),
        ("disable", "none"),
    ],
    ..Choice::new(Verify::Full, &[Verify::Full, Verify::Ca, Verify::None], Verify::as_str)
};

static CA_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "ca_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/patroni-ca.pem\"")
    .unset("the authorities of the system")
    .help(
        "The authorities to trust, PEM. The file may also hold the certificates of the servers, as \
         `openssl req -x509` makes them.",
    );

static CERT_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "cert_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/client.pem\"")
    .help("Client certificate, PEM, for Patroni's `verify_client`. It needs `key_file`.");

static KEY_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "key_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/client.key\"")
    .help("Key of the client certificate, PEM.");

/// The time limit of one answer of Patroni.
pub static TIMEOUT: Key<Seconds> =
    Key::new(SECTION, "timeout_seconds", Seconds::within(100, 60_000).or(1_000)).help(
        "The time after which an answer of Patroni is late. A late answer is marked, and still \
         counts if it comes within five seconds, or within this time if that is longer.",
    );

static SCOPE: Key<Text<String>> = Key::new(SECTION, "scope", Text::new("name", plain::name))
    .example("\"batman\"")
    .help(
        "The scope that the cluster must have. The pinned identity decides over what the URLs and \
             the stored list report, and never changes by itself. It is the scope of [etcd] too.",
    )
    .flags(&[Flag::new(Command::Both, "--scope", "NAME").help(
        "Patroni's scope that the cluster must have [default: the scope that the members report]",
    )]);

static GROUP: Key<Whole> = Key::new(SECTION, "group", Whole::within(0, 2_147_483_647))
    .example("0")
    .help("The Citus group that the cluster must have.")
    .flags(&[Flag::new(Command::Both, "--group", "NUMBER")
        .help("Citus group that the cluster must have [default: any]")]);

static SYSTEM_IDENTIFIER: Key<Text<String>> = Key::new(
    SECTION,
    "system_identifier",
    Text::new("number", plain::system_identifier),
)
.example("\"7710713066760545906\"")
.help(
    "The system identifier that the cluster must have, as pg_controldata shows it. Set it \
             where several clusters have one scope (the groups of a Citus cluster): Patroni's REST \
             API does not report the group.",
)
.flags(&[Flag::new(Command::Both, "--system-identifier", "NUMBER").help(
    "System identifier that the cluster must have [default: the one that the members report]",
)]);

/// Returns the settings of the section; none if an error makes them unknown.
pub fn finish(given: &Given<Section>, errors: &mut ConfigErrors) -> Option<PatroniConfig> {
    let keys = &given.value;
    let (cert_file, key_file) = (keys.get(&CERT_FILE), keys.get(&KEY_FILE));
    let ca_file = keys.get(&CA_FILE);
    check_pair(("cert_file", &cert_file), ("key_file", &key_file), errors);
    check_ca_file(&keys.get(&VERIFY), &ca_file, errors);
    let urls = keys.get(&URLS);
    if urls.is_absent() {
        let missing = Conflict::Missing { key: "urls", example: URLS_EXAMPLE };
        errors.push(given.origin.clone(), missing);
    }
    let urls = urls.given()?;
    check_count(urls.value.len(), &urls.origin, URLS_EXAMPLE, errors);
    check_distinct(urls.value.iter().map(|url| (&url.value, &url.origin)), errors);
    Some(PatroniConfig {
        urls: urls.value.iter().map(|url| url.value.clone()).collect(),
        verify: keys.or_usual(&VERIFY),
        ca_file: ca_file.value(),
        cert_file: cert_file.value(),
        key_file: key_file.value(),
        timeout: keys.or_usual(&TIMEOUT),
        pins: Identity {
            scope: keys.get(&SCOPE).value(),
            group: keys.get(&GROUP).value().and_then(|group| u32::try_from(group).ok()),
            system_identifier: keys.get(&SYSTEM_IDENTIFIER).value(),
        },
    })
}
