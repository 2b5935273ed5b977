//! The members as HAProxy's servers: their addresses, and their checks.

use std::path::Path;

use serde::Serialize;

use super::{agent_listen, agent_of_all, is_word};
use crate::render::host::bracketed;
use crate::render::label::labels;
use crate::render::refusal::Refusal;
use crate::render::{Profile, Request, escape};
use pgsteer_config::limits::HTTP_LISTEN;
use pgsteer_core::claim::Found;
use pgsteer_core::names::Endpoint;
use pgsteer_core::settings::{Membership, PatroniConfig, Verify};

/// A member for the templates.
#[derive(Clone, Serialize)]
pub struct Member {
    /// Its name in the cluster.
    pub name: String,
    label: String,
    /// The host as written before a port.
    host: String,
    port: u16,
    /// The settings that a server line with a host name needs.
    by_name: String,
    /// `port 8008` and other settings that send a check to the member's Patroni; none without
    /// Patroni.
    patroni: Option<String>,
    /// True if Patroni is on the host of its PostgreSQL.
    pub is_patroni_here: bool,
    /// The settings of this member's agent check, without the question.
    agent: String,
    /// The settings that send a check to the pages of the pgsteer that is the agent.
    page: String,
    /// The name of the member in questions to the agent.
    asked_as: String,
}

impl Member {
    /// Its host is an IPv6 address.
    pub fn is_v6(&self) -> bool {
        self.host.starts_with('[')
    }
}

/// All members, each with a label of its own.
pub fn members(request: &Request<'_>) -> Result<Vec<Member>, Refusal> {
    let names = request.members.iter().map(|member| member.name.as_str());
    let agent = agent_of_all(request)?;
    request
        .members
        .iter()
        .zip(labels(names))
        .map(|(found, label)| member(request, found, label, agent.as_ref()))
        .collect()
}

fn member(
    request: &Request<'_>,
    found: &Found,
    label: String,
    agent: Option<&Endpoint>,
) -> Result<Member, Refusal> {
    let postgres = &found.postgres;
    let profile = request.options.profile;
    let patroni = match (&found.patroni_url, &request.config.cluster.members) {
        (Some(url), Membership::Patroni(patroni)) => Some(patroni_check(url, postgres, patroni)?),
        (Some(_), Membership::Listed(_)) | (None, _) => None,
    };
    if patroni.is_none() && matches!(profile, Profile::Httpchk | Profile::Push) {
        return Err(Refusal::NoPatroni(found.name.clone()));
    }
    let agent_port = agent.map_or(agent_listen(request.config).port(), Endpoint::port);
    let agent_host = agent.map(|agent| bracketed(agent.host()));
    let agent_addr = agent_host.as_ref().map(|host| format!("agent-addr {host} "));
    let http_port = request.config.http.as_ref().map_or(HTTP_LISTEN, |http| http.listen).port();
    let page_addr = agent_host.as_ref().map(|host| format!("addr {host} "));
    Ok(Member {
        name: found.name.to_string(),
        label,
        host: bracketed(postgres.host()),
        port: postgres.port(),
        by_name: by_name(postgres, request.options.resolve),
        is_patroni_here: patroni.as_ref().is_some_and(|check| !check.starts_with("addr ")),
        patroni,
        agent: format!("{}agent-port {agent_port}", agent_addr.unwrap_or_default()),
        page: format!("{}port {http_port}", page_addr.unwrap_or_default()),
        asked_as: asked_as(found),
    })
}

/// Returns the name for the agent, whose line consists of words: a name of several words is
/// replaced by the host.
fn asked_as(found: &Found) -> String {
    let name = found.name.as_str();
    if is_word(name) { name.to_owned() } else { found.postgres.host().to_owned() }
}

/// Returns the settings that a server line with a host name needs; empty for an address.
pub fn by_name(endpoint: &Endpoint, resolve: bool) -> String {
    match (endpoint.ip(), resolve) {
        (Some(_), _) => String::new(),
        (None, false) => " init-addr last,libc,none".to_owned(),
        (None, true) => " init-addr last,libc,none resolvers pgsteer:dns".to_owned(),
    }
}

/// Returns the settings that send a check to the Patroni at `url`.
fn patroni_check(
    url: &str,
    postgres: &Endpoint,
    patroni: &PatroniConfig,
) -> Result<String, Refusal> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let api = Endpoint::parse(rest, None).map_err(|_| Refusal::Unwritable {
        what: "Patroni's address",
        why: "it is not HOST:PORT",
    })?;
    let mut words = Vec::new();
    if api.host() != postgres.host() {
        words.push(format!("addr {}", bracketed(api.host())));
    }
    words.push(format!("port {}", api.port()));
    if scheme == "https" {
        words.push(match (patroni.verify, &patroni.ca_file) {
            (Verify::None, _) => "check-ssl verify none".to_owned(),
            (_, Some(file)) => format!("check-ssl verify required ca-file {}", path(file)?),
            (_, None) => "check-ssl verify required ca-file @system-ca".to_owned(),
        });
        if let Some(file) = &patroni.cert_file {
            check_key(file, patroni.key_file.as_deref())?;
            words.push(format!("crt {}", path(file)?));
        }
        if api.ip().is_none() {
            let host = escape::haproxy(api.host());
            words.push(format!("check-sni {host}"));
            if patroni.verify == Verify::Full {
                words.push(format!("verifyhost {host}"));
            }
        }
    }
    Ok(words.join(" "))
}

/// HAProxy has no word for the key: it stands in the file of the certificate, or beside it
/// (HAProxy's manual, `ssl-load-extra-files`).
fn check_key(cert: &Path, key: Option<&Path>) -> Result<(), Refusal> {
    let mut beside = cert.as_os_str().to_owned();
    beside.push(".key");
    match key {
        Some(key) if key != cert && key.as_os_str() != beside => Err(Refusal::KeyElsewhere {
            cert: cert.to_string_lossy().into_owned(),
            key: key.to_string_lossy().into_owned(),
        }),
        _ => Ok(()),
    }
}

fn path(file: &Path) -> Result<String, Refusal> {
    let text = file.to_str().filter(|text| !text.contains(['\n', '\r']));
    let why = "a path with control characters";
    text.map(escape::haproxy).ok_or(Refusal::Unwritable { what: "the path of a file", why })
}
