//! `[etcd]`: the watch of Patroni's keys.

use std::path::PathBuf;

use pgsteer_core::settings::{EtcdConfig, Verify};

use super::patroni::VERIFIES;
use super::{check_ca_file, check_count, check_distinct, check_pair};
use crate::address::etcd_url;
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::Given;
use crate::key::{Command, Flag, Key, SectionKeys};
use crate::kinds::{Choice, List, Text};
use crate::plain;
use crate::range::{Seconds, Whole};
use crate::written::{Draft, Section};

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "The etcd of Patroni, if it keeps its keys there by the v3 API (`etcd3:` in patroni.yml). \
           With it pgsteer detects a switchover before the old primary is shut down, and holds \
           new logins in time. Nothing else depends on it. It needs read access below the \
           namespace only. A section that is there needs `urls`.",
    keys: &[
        &URLS,
        &NAMESPACE,
        &SCOPE,
        &GROUP,
        &USERNAME,
        &PASSWORD_FILE,
        &VERIFY,
        &CA_FILE,
        &CERT_FILE,
        &KEY_FILE,
        &TIMEOUT,
    ],
    at_restart: false,
};

/// The name of the section.
pub const SECTION: &str = "etcd";

const URLS_EXAMPLE: &str = "urls = [\"http://10.0.0.11:2379\"]";

/// The members of etcd.
pub static URLS: Key<List<String>> = Key::new(SECTION, "urls", List::new("URLs", etcd_url))
    .example("[\"http://10.0.0.11:2379\"]")
    .help("The etcd servers.")
    .flags(&[Flag::new(Command::Run, "--etcd", "URL")
        .repeated()
        .help("An etcd of Patroni, to detect a switchover before it begins. May be repeated")]);

static NAMESPACE: Key<Text<String>> =
    Key::new(SECTION, "namespace", Text::new("name", plain::namespace).or("/service"))
        .example("\"/service\"")
        .help("As in patroni.yml.");

/// The scope, with the group of a Citus cluster behind it.
pub static SCOPE: Key<Text<String>> = Key::new(SECTION, "scope", Text::new("name", plain::name))
    .example("\"batman\"")
    .unset("the scope of [patroni], else the one that Patroni reports")
    .help(
        "As in patroni.yml; `batman/0` for a group of a Citus cluster. It is the scope of [patroni] \
         too, so it pins the identity of the cluster.",
    );

/// The group of a Citus cluster.
pub static GROUP: Key<Whole> = Key::new(SECTION, "group", Whole::within(0, 2_147_483_647))
    .example("0")
    .unset("the group of [patroni], else none")
    .help(
        "The group of a Citus cluster, whose keys are below SCOPE/GROUP. Patroni's REST API does not \
         report it. It is the group of [patroni] too.",
    );

static USERNAME: Key<Text<String>> =
    Key::new(SECTION, "username", Text::new("name", plain::name)).example("\"pgsteer\"").help(
        "User, for an etcd with authentication. Without https the password goes over the network \
         in clear.",
    );

static PASSWORD_FILE: Key<Text<PathBuf>> =
    Key::new(SECTION, "password_file", Text::<PathBuf>::file())
        .example("\"/etc/pgsteer/etcd-password\"")
        .help("File that holds the password of that user.");

static VERIFY: Key<Choice<Verify>> = Key::new(SECTION, "verify", VERIFIES).help("As in [patroni].");

static CA_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "ca_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/etcd-ca.pem\"")
    .unset("the authorities of the system")
    .help("The authorities to trust, PEM.");

static CERT_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "cert_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/etcd-client.pem\"")
    .help("Client certificate, PEM. It needs `key_file`.");

static KEY_FILE: Key<Text<PathBuf>> = Key::new(SECTION, "key_file", Text::<PathBuf>::file())
    .example("\"/etc/pgsteer/etcd-client.key\"")
    .help("Key of the client certificate, PEM.");

static TIMEOUT: Key<Seconds> =
    Key::new(SECTION, "timeout_seconds", Seconds::within(100, 60_000).or(2_000))
        .help("The time that etcd has for one answer.");

/// Returns the settings of the section; none if an error makes them unknown.
pub fn finish(
    draft: &Draft,
    given: &Given<Section>,
    errors: &mut ConfigErrors,
) -> Option<EtcdConfig> {
    let keys = &given.value;
    if draft.is_listed() {
        errors.push(given.origin.clone(), Conflict::EtcdWithoutPatroni);
    }
    let (cert_file, key_file) = (keys.get(&CERT_FILE), keys.get(&KEY_FILE));
    let (username, password_file) = (keys.get(&USERNAME), keys.get(&PASSWORD_FILE));
    let ca_file = keys.get(&CA_FILE);
    check_pair(("cert_file", &cert_file), ("key_file", &key_file), errors);
    check_ca_file(&keys.get(&VERIFY), &ca_file, errors);
    check_pair(("username", &username), ("password_file", &password_file), errors);
    let urls = keys.get(&URLS);
    if urls.is_absent() {
        let missing = Conflict::Missing { key: "urls", example: URLS_EXAMPLE };
        errors.push(given.origin.clone(), missing);
    }
    let urls = urls.given()?;
    check_count(urls.value.len(), &urls.origin, URLS_EXAMPLE, errors);
    check_distinct(urls.value.iter().map(|url| (&url.value, &url.origin)), errors);
    Some(EtcdConfig {
        urls: urls.value.iter().map(|url| url.value.clone()).collect(),
        namespace: keys.or_usual(&NAMESPACE),
        scope: keys.get(&SCOPE).value(),
        username: username.value(),
        password_file: password_file.value(),
        verify: keys.or_usual(&VERIFY),
        ca_file: ca_file.value(),
        cert_file: cert_file.value(),
        key_file: key_file.value(),
        timeout: keys.or_usual(&TIMEOUT),
    })
}
