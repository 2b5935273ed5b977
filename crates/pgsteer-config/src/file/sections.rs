//! The sections of the file, each with its keys.

use std::collections::BTreeMap;

use pgsteer_core::names::{ClusterName, MemberName, ServiceName};
use toml::de::DeTable;

use super::reader::{Entry, Reader, Section};
use super::values::{bytes, listen, listen_or_none, login, path, port, seconds, tag, text, whole};
use crate::address;
use crate::conflict::Conflict;
use crate::draft::{
    AgentDraft, CheckDraft, ClusterDraft, Draft, EtcdDraft, Field, Given, MemberDraft,
    PatroniDraft, ProxyDraft, ServiceDraft, Services,
};
use crate::limits::{self, TAGS_MAX};
use crate::plain;
use crate::problem::Problem;
use crate::purpose::Purpose;
use crate::words;

/// The whole file.
pub fn draft(reader: &Reader, table: &DeTable<'_>) -> Draft {
    let mut file = Section::new(reader, "", table);
    let draft = Draft {
        purpose: Purpose::default(),
        file: Some(reader.file_name()),
        cluster: section(&mut file, "cluster", cluster).value().unwrap_or_default(),
        patroni: section(&mut file, "patroni", patroni),
        members: file.find("members").map_or_else(Field::default, members),
        etcd: section(&mut file, "etcd", etcd),
        check: section(&mut file, "check", check),
        services: file.find("services").map_or_else(Field::default, services),
        http: section(&mut file, "http", |s| s.read("listen", listen_or_none))
            .value()
            .unwrap_or_default(),
        agent: section(&mut file, "agent", agent),
        proxy: section(&mut file, "proxy", proxy).value().unwrap_or_default(),
    };
    file.finish();
    draft
}

fn section<'t, T>(
    file: &mut Section<'_, 't>,
    key: &'static str,
    make: impl FnOnce(&mut Section<'_, 't>) -> T,
) -> Field<T> {
    file.find(key).map_or_else(Field::default, |entry| entry.section(make))
}

fn cluster(s: &mut Section<'_, '_>) -> ClusterDraft {
    let name = |text: &str| Ok(ClusterName::new(text)?);
    ClusterDraft {
        name: s.read("name", text("name = \"main\"", name)),
        split_brain: s.read("split_brain", text("split_brain = \"block\"", words::split_brain)),
        patroni_loss_grace: s
            .read("patroni_loss_grace_seconds", seconds(limits::PATRONI_LOSS_GRACE)),
        silence: s.read("silence_seconds", seconds(limits::SILENCE)),
        local: s.read("local", text("local = \"n1\"", |text| Ok(MemberName::new(text)?))),
        state_directory: s.read(
            "state_directory",
            text("state_directory = \"/var/lib/pgsteer\"", plain::state_directory),
        ),
    }
}

fn patroni(s: &mut Section<'_, '_>) -> PatroniDraft {
    PatroniDraft {
        urls: s.find("urls").map_or_else(Field::default, |e| {
            urls(&e, "urls = [\"http://10.0.0.11:8008\"]", address::patroni_url)
        }),
        verify: s.read("verify", text("verify = \"full\"", words::verify)),
        ca_file: s.read("ca_file", path),
        cert_file: s.read("cert_file", path),
        key_file: s.read("key_file", path),
        timeout: s.read("timeout_seconds", seconds(limits::PATRONI_TIMEOUT)),
        scope: s.read("scope", text("scope = \"batman\"", plain::name)),
        group: s.read("group", whole(limits::GROUP)),
        system_identifier: s.read(
            "system_identifier",
            text("system_identifier = \"7710713066760545906\"", plain::name),
        ),
    }
}

fn etcd(s: &mut Section<'_, '_>) -> EtcdDraft {
    EtcdDraft {
        urls: s.find("urls").map_or_else(Field::default, |e| {
            urls(&e, "urls = [\"http://10.0.0.11:2379\"]", address::etcd_url)
        }),
        namespace: s.read("namespace", text("namespace = \"/service\"", plain::namespace)),
        scope: s.read("scope", text("scope = \"batman\"", plain::name)),
        username: s.read("username", text("username = \"pgsteer\"", plain::name)),
        password_file: s.read("password_file", path),
        verify: s.read("verify", text("verify = \"full\"", words::verify)),
        ca_file: s.read("ca_file", path),
        cert_file: s.read("cert_file", path),
        key_file: s.read("key_file", path),
        timeout: s.read("timeout_seconds", seconds(limits::ETCD_TIMEOUT)),
    }
}

fn urls(
    entry: &Entry<'_, '_>,
    example: &'static str,
    read: fn(&str) -> Result<String, Problem>,
) -> Field<Vec<Given<String>>> {
    let items = entry.items(example);
    let Some(items) = items.given() else {
        return Field::wrong();
    };
    let urls: Vec<Field<String>> =
        items.value.iter().map(|item| item.read(text(example, read))).collect();
    if urls.iter().any(Field::is_wrong) {
        return Field::wrong();
    }
    let urls = urls.iter().filter_map(Field::given).cloned().collect();
    Field::new(urls, items.place.clone())
}

fn members(entry: Entry<'_, '_>) -> Field<Vec<MemberDraft>> {
    let entries = entry.entries();
    let Some(given) = entries.given() else {
        return Field::wrong();
    };
    let members: Vec<MemberDraft> = given.value.iter().filter_map(member).collect();
    if members.len() < given.value.len() {
        // One could not be named. How many there are decides what else is right.
        return Field::wrong();
    }
    Field::new(members, given.place.clone())
}

fn member(entry: &Entry<'_, '_>) -> Option<MemberDraft> {
    let postgres = entry
        .section(|s| s.read("postgres", text("postgres = \"10.0.0.11:5432\"", address::postgres)));
    let name = MemberName::new(entry.key).map_err(|err| entry.report_key(err));
    Some(MemberDraft {
        name: name.ok()?,
        place: entry.place(),
        postgres: postgres.value().unwrap_or_else(Field::wrong),
    })
}

fn check(s: &mut Section<'_, '_>) -> CheckDraft {
    CheckDraft {
        user: s.read("user", login),
        dbname: s.read("dbname", login),
        password_file: s.read("password_file", path),
        sslmode: s.read("sslmode", text("sslmode = \"prefer\"", words::sslmode)),
        require_auth: s
            .read("require_auth", text("require_auth = \"scram-sha-256\"", words::require_auth)),
        ca_file: s.read("ca_file", path),
        timeout: s.read("timeout_seconds", seconds(limits::CHECK_TIMEOUT)),
    }
}

fn services(entry: Entry<'_, '_>) -> Field<Services> {
    let entries = entry.entries();
    let Some(given) = entries.given() else {
        return Field::wrong();
    };
    let services: Services = given.value.iter().filter_map(service).collect();
    if services.is_empty() && !given.value.is_empty() {
        return Field::wrong();
    }
    Field::new(services, given.place.clone())
}

fn service(entry: &Entry<'_, '_>) -> Option<(ServiceName, ServiceDraft)> {
    let service = entry.section(|s| service_keys(s, ServiceDraft::new(entry.place())));
    let name = ServiceName::new(entry.key).map_err(|err| entry.report_key(err));
    Some((name.ok()?, service.value()?))
}

fn service_keys(s: &mut Section<'_, '_>, empty: ServiceDraft) -> ServiceDraft {
    ServiceDraft {
        listen: s.read("listen", listen),
        role: s.read("role", text("role = \"primary\"", words::role)),
        hold: s.read("hold_seconds", seconds(limits::HOLD)),
        lag_bytes: s.read("lag_bytes_max", bytes),
        lag: s.read("lag_seconds_max", seconds(limits::LAG_SECONDS)),
        fallback: s.read("fallback", text("fallback = \"primary\"", words::fallback)),
        tags: s.find("tags").map_or_else(Field::default, |e| tags(&e)),
        pooler_port: s.read("pooler_port", port),
        pooler_down: s.read("pooler_down", text("pooler_down = \"bypass\"", words::pooler_down)),
        connect_timeout: s.read("connect_timeout_seconds", seconds(limits::CONNECT_TIMEOUT)),
        member_sessions_max: s.read("member_sessions_max", whole(limits::SERVICE_SESSIONS)),
        sessions_max: s.read("sessions_max", whole(limits::SERVICE_SESSIONS)),
        stick: s.read("stick", text("stick = \"address\"", words::stick)),
        on_promotion: s.read("on_promotion", text("on_promotion = \"end\"", words::on_promotion)),
        ..empty
    }
}

fn tags(entry: &Entry<'_, '_>) -> Field<BTreeMap<String, String>> {
    let entries = entry.entries();
    let Some(given) = entries.given() else {
        return Field::wrong();
    };
    let found = given.value.len();
    if found > TAGS_MAX {
        entry.report_key(Conflict::TooMany { found, max: TAGS_MAX });
        return Field::wrong();
    }
    let tags = given
        .value
        .iter()
        .filter_map(|tag_entry| Some((tag_entry.key.to_owned(), tag_entry.read(tag).value()?)))
        .collect();
    Field::new(tags, given.place.clone())
}

fn agent(s: &mut Section<'_, '_>) -> AgentDraft {
    AgentDraft {
        listen: s.read("listen", listen_or_none),
        vocabulary: s.read("vocabulary", text("vocabulary = \"admin\"", words::vocabulary)),
        default: s.read("default", text("default = \"primary\"", plain::question)),
        pooler_port: s.read("pooler_port", port),
        line_wait: s.read("line_wait_seconds", seconds(limits::LINE_WAIT)),
        weight: s.read("weight", text("weight = \"lag\"", words::weight)),
        maxconn: s.read("maxconn", whole(limits::MAXCONN)),
    }
}

fn proxy(s: &mut Section<'_, '_>) -> ProxyDraft {
    ProxyDraft {
        workers: s.read("workers", whole(limits::WORKERS)),
        sessions_max: s.read("sessions_max", whole(limits::SESSIONS)),
        sessions_per_address_max: s
            .read("sessions_per_address_max", whole(limits::SESSIONS_PER_ADDRESS)),
        login_timeout: s.read("login_timeout_seconds", seconds(limits::LOGIN_TIMEOUT)),
        shutdown_grace: s.read("shutdown_grace_seconds", seconds(limits::SHUTDOWN_GRACE)),
        keepalive: s.read("keepalive_seconds", seconds(limits::KEEPALIVE)),
        user_timeout: s.read("user_timeout_seconds", seconds(limits::USER_TIMEOUT)),
    }
}
