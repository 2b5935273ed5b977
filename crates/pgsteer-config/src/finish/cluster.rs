//! The cluster: where its members come from, and the login to ask them with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Found;
use pgsteer_core::identity::Identity;
use pgsteer_core::names::ClusterName;
use pgsteer_core::settings::defaults::MEMBERS_MAX;
use pgsteer_core::settings::{
    CheckConfig, ClusterConfig, EtcdConfig, Here, Membership, PatroniConfig, RequireAuth,
    SplitBrain, SslMode, StateDirectory, Verify,
};

use crate::conflict::Conflict;
use crate::draft::{CheckDraft, Draft, EtcdDraft, Field, Given, MemberDraft, PatroniDraft};
use crate::error::{ConfigErrors, Place};
use crate::limits;

/// The cluster as meant; nothing where an error keeps it from being known.
pub fn finish(draft: &Draft, errors: &mut ConfigErrors) -> Option<ClusterConfig> {
    check_split_brain(draft, errors);
    check_silence(draft, errors);
    check_local(draft, errors);
    let members = membership(draft, errors);
    let check = match draft.check.given() {
        Some(given) => Some(login(given, errors)?),
        None => None,
    };
    let etcd = match draft.etcd.given() {
        Some(given) => Some(etcd(draft, given, errors)?),
        None => None,
    };
    let cluster = &draft.cluster;
    let name = match cluster.name.given() {
        Some(given) => Some(given.value.clone()),
        None => ClusterName::new(limits::CLUSTER_NAME).ok(),
    };
    Some(ClusterConfig {
        name: name?,
        members: members?,
        check,
        etcd,
        split_brain: cluster.split_brain.or(SplitBrain::Block),
        patroni_loss_grace: cluster.patroni_loss_grace.or(limits::PATRONI_LOSS_GRACE.usual()),
        silence: cluster.silence.or(limits::SILENCE.usual()),
        here: Here {
            name: cluster.local.clone().value(),
            patroni_url: None,
            state_directory: cluster.state_directory.or(StateDirectory::Usual),
        },
    })
}

fn membership(draft: &Draft, errors: &mut ConfigErrors) -> Option<Membership> {
    if draft.patroni.is_absent() && draft.members.is_absent() {
        let (purpose, file) = (draft.purpose, draft.file.clone());
        errors.push(Place::Whole, Conflict::NoMembers { purpose, file });
        return None;
    }
    if let (Some(patroni), Some(members)) = (draft.patroni.given(), draft.members.given()) {
        let patroni = patroni.place.clone();
        let both = Conflict::PatroniAndMembers { patroni };
        errors.push(members.place.clone(), both);
    }
    if draft.is_listed() && draft.check.is_absent() {
        let place = draft.members.given().map(|given| given.place.clone());
        errors.push(place.unwrap_or(Place::Whole), Conflict::NoCheckLogin(draft.purpose));
    }
    let listed = draft.members.given().map(|given| listed(given, errors));
    let patroni = draft.patroni.given().map(|given| patroni(given, errors));
    match (patroni, listed) {
        (Some(patroni), _) => patroni.map(Membership::Patroni),
        (None, Some(listed)) => listed.map(Membership::Listed),
        (None, None) => None,
    }
}

fn patroni(given: &Given<PatroniDraft>, errors: &mut ConfigErrors) -> Option<PatroniConfig> {
    let draft = &given.value;
    check_pair(("cert_file", &draft.cert_file), ("key_file", &draft.key_file), errors);
    check_ca_file(&draft.verify, &draft.ca_file, errors);
    let example = "urls = [\"http://10.0.0.11:8008\"]";
    if draft.urls.is_absent() {
        errors.push(given.place.clone(), Conflict::Missing { key: "urls", example });
    }
    let urls = draft.urls.given()?;
    check_count(urls.value.len(), &urls.place, example, errors);
    check_distinct(urls.value.iter().map(|url| (&url.value, &url.place)), errors);
    Some(PatroniConfig {
        urls: urls.value.iter().map(|url| url.value.clone()).collect(),
        verify: draft.verify.or(Verify::Full),
        ca_file: draft.ca_file.clone().value(),
        cert_file: draft.cert_file.clone().value(),
        key_file: draft.key_file.clone().value(),
        timeout: draft.timeout.or(limits::PATRONI_TIMEOUT.usual()),
        pins: Identity {
            scope: draft.scope.clone().value(),
            group: draft.group.clone().value().and_then(|group| u32::try_from(group).ok()),
            system_identifier: draft.system_identifier.clone().value(),
        },
    })
}

fn etcd(whole: &Draft, given: &Given<EtcdDraft>, errors: &mut ConfigErrors) -> Option<EtcdConfig> {
    let draft = &given.value;
    if whole.is_listed() {
        errors.push(given.place.clone(), Conflict::EtcdWithoutPatroni);
    }
    check_pair(("cert_file", &draft.cert_file), ("key_file", &draft.key_file), errors);
    check_ca_file(&draft.verify, &draft.ca_file, errors);
    let password_file = ("password_file", &draft.password_file);
    check_pair(("username", &draft.username), password_file, errors);
    let example = "urls = [\"http://10.0.0.11:2379\"]";
    if draft.urls.is_absent() {
        errors.push(given.place.clone(), Conflict::Missing { key: "urls", example });
    }
    let urls = draft.urls.given()?;
    check_count(urls.value.len(), &urls.place, example, errors);
    check_distinct(urls.value.iter().map(|url| (&url.value, &url.place)), errors);
    Some(EtcdConfig {
        urls: urls.value.iter().map(|url| url.value.clone()).collect(),
        namespace: draft.namespace.or(limits::ETCD_NAMESPACE.to_owned()),
        scope: draft.scope.clone().value(),
        username: draft.username.clone().value(),
        password_file: draft.password_file.clone().value(),
        verify: draft.verify.or(Verify::Full),
        ca_file: draft.ca_file.clone().value(),
        cert_file: draft.cert_file.clone().value(),
        key_file: draft.key_file.clone().value(),
        timeout: draft.timeout.or(limits::ETCD_TIMEOUT.usual()),
    })
}

fn listed(given: &Given<Vec<MemberDraft>>, errors: &mut ConfigErrors) -> Option<Vec<Found>> {
    let members = &given.value;
    let example = "[members.n1] with postgres = \"10.0.0.11:5432\"";
    check_count(members.len(), &given.place, example, errors);
    for member in members.iter().filter(|m| m.postgres.is_absent()) {
        let example = "postgres = \"10.0.0.11:5432\"";
        let place = member.place.clone();
        errors.push(place, Conflict::Missing { key: "postgres", example });
    }
    check_distinct(members.iter().map(|m| (&m.name, &m.place)), errors);
    let addresses = members.iter().filter_map(|m| m.postgres.given());
    check_distinct(addresses.map(|given| (&given.value, &given.place)), errors);
    members
        .iter()
        .map(|member| {
            Some(Found {
                name: member.name.clone(),
                postgres: member.postgres.given()?.value.clone(),
                patroni_url: None::<Arc<str>>,
            })
        })
        .collect()
}

fn login(given: &Given<CheckDraft>, errors: &mut ConfigErrors) -> Option<CheckConfig> {
    let draft = &given.value;
    let sslmode = draft.sslmode.or(SslMode::Prefer);
    if let (Some(ca), false) = (draft.ca_file.given(), draft.sslmode.is_wrong())
        && !matches!(sslmode, SslMode::VerifyCa | SslMode::VerifyFull)
    {
        errors.push(ca.place.clone(), Conflict::CaFileUnused(sslmode));
    }
    if draft.user.is_absent() {
        let example = "user = \"pgcheck\", or --check-user pgcheck";
        errors.push(given.place.clone(), Conflict::Missing { key: "user", example });
    }
    Some(CheckConfig {
        user: draft.user.clone().value()?,
        dbname: draft.dbname.or(limits::CHECK_DBNAME.to_owned()),
        password_file: draft.password_file.clone().value(),
        sslmode,
        require_auth: draft.require_auth.or(RequireAuth::usual(sslmode)),
        ca_file: draft.ca_file.clone().value(),
        timeout: draft.timeout.or(limits::CHECK_TIMEOUT.usual()),
    })
}

fn check_split_brain(draft: &Draft, errors: &mut ConfigErrors) {
    let highest = draft.cluster.split_brain.given();
    let highest = highest.filter(|given| given.value == SplitBrain::HighestTimeline);
    if let (Some(given), false) = (highest, draft.patroni.is_absent()) {
        errors.push(given.place.clone(), Conflict::HighestTimelineWithPatroni);
    }
}

/// Where the members are listed it is known who may run here; the others the engine looks for.
fn check_local(draft: &Draft, errors: &mut ConfigErrors) {
    let (Some(local), Some(members)) = (draft.cluster.local.given(), draft.members.given()) else {
        return;
    };
    let names = || members.value.iter().map(|member| &member.name);
    if draft.is_listed() && !names().any(|name| *name == local.value) {
        let unknown = Conflict::UnknownLocal(local.value.clone(), names().cloned().collect());
        errors.push(local.place.clone(), unknown);
    }
}

/// Sessions must not be ended for silence while the answer may still come in time.
fn check_silence(draft: &Draft, errors: &mut ConfigErrors) {
    let silence = draft.cluster.silence.or(limits::SILENCE.usual());
    let patroni = draft.patroni.given().map(|given| &given.value.timeout);
    let check = draft.check.given().map(|given| &given.value.timeout);
    let answers = [("Patroni's answer", patroni), ("a check's answer", check)];
    for (of, timeout) in answers {
        let Some(given) = timeout.and_then(Field::given) else {
            continue;
        };
        if silence < given.value {
            let place = draft.cluster.silence.given();
            let place = place.map_or_else(
                || Place::Default("cluster.silence_seconds".to_owned()),
                |given| given.place.clone(),
            );
            let timeout: Duration = given.value;
            errors.push(place, Conflict::SilenceTooShort { timeout, of });
        }
    }
}

/// Authorities are of no use where nothing is verified.
fn check_ca_file(verify: &Field<Verify>, ca_file: &Field<PathBuf>, errors: &mut ConfigErrors) {
    if let (Some(ca), Verify::None) = (ca_file.given(), verify.or(Verify::Full)) {
        errors.push(ca.place.clone(), Conflict::CaFileWithoutVerify);
    }
}

/// A client certificate needs its key, and the key its certificate; a user and a password alike.
fn check_pair<A, B>(
    (one_key, one): (&'static str, &Field<A>),
    (other_key, other): (&'static str, &Field<B>),
    errors: &mut ConfigErrors,
) {
    if let (Some(given), true) = (one.given(), other.is_absent()) {
        errors.push(given.place.clone(), Conflict::WithoutPartner(other_key));
    }
    if let (Some(given), true) = (other.given(), one.is_absent()) {
        errors.push(given.place.clone(), Conflict::WithoutPartner(one_key));
    }
}

fn check_count(found: usize, place: &Place, example: &'static str, errors: &mut ConfigErrors) {
    let max = MEMBERS_MAX;
    if found == 0 {
        errors.push(place.clone(), Conflict::Empty { example });
    }
    if found > max {
        errors.push(place.clone(), Conflict::TooMany { found, max });
    }
}

fn check_distinct<'a, T: PartialEq + fmt::Display + 'a>(
    all: impl Iterator<Item = (&'a T, &'a Place)>,
    errors: &mut ConfigErrors,
) {
    let mut seen: Vec<(&T, &Place)> = Vec::new();
    for (value, place) in all.take(MEMBERS_MAX) {
        if let Some((_, other)) = seen.iter().find(|(earlier, _)| *earlier == value) {
            let (what, other) = (value.to_string(), (*other).clone());
            errors.push(place.clone(), Conflict::Same { what, other });
        }
        seen.push((value, place));
    }
}
