//! HAProxy's configuration, in six profiles: what each needs, and what its template is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::Serialize;

use super::label::labels;
use super::refusal::Refusal;
use super::timing::Timing;
use super::{Rendered, Request, StatsLogin, escape, is_member, packet, paper};
use crate::claim::{Found, Role};
use crate::config::limits::{AGENT_LISTEN, HTTP_LISTEN};
use crate::config::{
    CheckConfig, Config, Membership, PatroniConfig, PoolerDown, ServiceConfig, SslMode, Vocabulary,
};
use crate::names::{Endpoint, MemberName, ServiceName};

/// How HAProxy learns who is primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// It asks Patroni's REST API.
    Httpchk,
    /// pgsteer tells it, by agent-checks.
    Agent,
    /// The same, and a pooler that is down is led past.
    AgentBypass,
    /// It asks PostgreSQL, by a login that needs no password.
    Sql,
    /// It stands where clients know an old primary, and leads them to the right one.
    Redirect,
    /// It stands in front of several pgsteers and knows nothing of members.
    Pgsteer,
}

impl Profile {
    /// Every profile, in the order in which they are explained.
    pub const ALL: [Profile; 6] = [
        Profile::Httpchk,
        Profile::Agent,
        Profile::AgentBypass,
        Profile::Sql,
        Profile::Redirect,
        Profile::Pgsteer,
    ];

    /// The word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Httpchk => "httpchk",
            Profile::Agent => "agent",
            Profile::AgentBypass => "agent-bypass",
            Profile::Sql => "sql",
            Profile::Redirect => "redirect",
            Profile::Pgsteer => "pgsteer",
        }
    }

    /// What it is, in one line.
    pub const fn about(self) -> &'static str {
        match self {
            Profile::Httpchk => "HAProxy asks Patroni's REST API who is primary",
            Profile::Agent => "pgsteer tells HAProxy who is primary, and a check stands beside it",
            Profile::AgentBypass => {
                "pgsteer tells HAProxy who is primary; through PgBouncer, past it where it is down"
            }
            Profile::Sql => "HAProxy asks PostgreSQL itself; for clusters without Patroni",
            Profile::Redirect => {
                "clients who still come to an old primary are led to the right one"
            }
            Profile::Pgsteer => "HAProxy in front of several pgsteers",
        }
    }
}

/// A version of HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HaproxyVersion {
    major: u16,
    minor: u16,
}

impl HaproxyVersion {
    /// The oldest one that the files are for.
    pub const OLDEST: HaproxyVersion = HaproxyVersion { major: 2, minor: 6 };
    /// The first in which a server need not count as UP before its first check (`init-state`).
    pub(crate) const INIT_STATE: HaproxyVersion = HaproxyVersion { major: 3, minor: 1 };

    /// A version by its first two numbers.
    pub(crate) const fn new(major: u16, minor: u16) -> HaproxyVersion {
        HaproxyVersion { major, minor }
    }

    /// Reads `2.6`, or `3.1.5`, whose last number does not matter.
    ///
    /// # Errors
    /// No version, or one before [`HaproxyVersion::OLDEST`].
    pub fn read(text: &str) -> Result<HaproxyVersion, Refusal> {
        let wrong = || Refusal::HaproxyVersion(text.to_owned());
        let mut numbers = text.split('.').map(|number| number.parse::<u16>().map_err(|_| wrong()));
        let mut next = || numbers.next().unwrap_or_else(|| Err(wrong()));
        let version = HaproxyVersion { major: next()?, minor: next()? };
        (version >= HaproxyVersion::OLDEST).then_some(version).ok_or_else(wrong)
    }
}

impl std::fmt::Display for HaproxyVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the templates of HAProxy are told.
#[derive(Serialize)]
struct Page<'a> {
    made_from: &'a str,
    profile: &'a str,
    about: &'a str,
    cluster: &'a str,
    sessions_max: usize,
    keepalive_s: u64,
    user_timeout_ms: u64,
    /// What comes behind the settings of every server that is checked.
    server_tail: String,
    detect_ms: u64,
    t: Timing,
    stats: Stats,
    resolve: bool,
    members: Vec<Member>,
    services: Vec<Service>,
    agent: Agent,
    sql: Option<Sql>,
    doors: Vec<Door>,
    pass: &'a [String],
    local: Option<Member>,
}

#[derive(Serialize)]
struct Stats {
    listen: String,
    /// `user:password`.
    login: Option<String>,
    /// A pgsteer that has its part in this has its pages on the same port.
    meets_pages: bool,
}

#[derive(Clone, Serialize)]
struct Member {
    name: String,
    label: String,
    /// The host as it stands in front of a port.
    host: String,
    port: u16,
    /// What makes a server line of a host name safe.
    by_name: String,
    /// `port 8008` and whatever else leads a check to the member's Patroni; none without it.
    patroni: Option<String>,
    /// Patroni is on the host of its PostgreSQL.
    is_patroni_here: bool,
    /// What asks the agent of this member, without the question.
    agent: String,
    /// What leads a check to the pages of the pgsteer that is the agent.
    page: String,
    /// How the agent calls the member.
    asked_as: String,
}

#[derive(Serialize)]
struct Service {
    name: String,
    label: String,
    listen: String,
    port: u16,
    role: &'static str,
    connect_ms: u64,
    pooler_port: Option<u16>,
    /// Patroni's health check.
    probe: String,
    /// What asks the agent whether a member is fit although its pooler is not.
    direct: String,
    /// The service that takes over while there is no replica.
    fallback: Option<String>,
    /// That service has a pooler.
    fallback_pooled: bool,
}

#[derive(Serialize)]
struct Agent {
    port: u16,
    /// `pgsteer agent` has to be told so, for want of a file.
    is_guessed: bool,
    vocabulary: &'static str,
    /// The check beside the agent asks Patroni; without it, pgsteer's pages.
    has_patroni: bool,
    /// That check can look at the pooler as well, because it is on the same host.
    reaches_pooler: bool,
}

#[derive(Serialize)]
struct Sql {
    user: String,
    dbname: String,
    startup: String,
    question_text: &'static str,
    question: String,
    let_in: &'static str,
    takes_writes: &'static str,
    in_recovery: &'static str,
}

#[derive(Serialize)]
struct Door {
    label: String,
    host: String,
    by_name: String,
    http_port: u16,
}

/// The one file of this kind.
pub fn render(request: &Request<'_>) -> Result<Vec<Rendered>, Refusal> {
    let page = page(request)?;
    let template = format!("haproxy/{}.cfg", page.profile);
    let text = paper::fill(&template, request.template, &page)?;
    let is_secret = page.stats.login.is_some();
    Ok(vec![Rendered { path: "haproxy.cfg".to_owned(), text, is_secret }])
}

fn page<'a>(request: &Request<'a>) -> Result<Page<'a>, Refusal> {
    let Request { config, wishes, .. } = *request;
    let profile = wishes.profile;
    check_services(config, profile)?;
    let members = members(request)?;
    let has_guard = profile == Profile::Sql || !has_patroni(request) && is_redirect(profile);
    let t = match has_guard {
        true => Timing::guarded_within(wishes.detect)?,
        false => Timing::within(wishes.detect)?,
    };
    let init_state = wishes.haproxy >= HaproxyVersion::INIT_STATE;
    let sql = sql(config, profile, has_guard)?;
    let services = services(config, profile)?;
    let stats = stats(request)?;
    let local = local(request, &members)?;
    Ok(Page {
        made_from: request.made_from,
        profile: profile.as_str(),
        about: profile.about(),
        cluster: config.cluster.name.as_str(),
        sessions_max: config.proxy.sessions_max,
        keepalive_s: config.proxy.keepalive.as_secs(),
        user_timeout_ms: millis(config.proxy.user_timeout),
        server_tail: if init_state { " init-state down".to_owned() } else { String::new() },
        detect_ms: millis(wishes.detect),
        t,
        stats,
        resolve: wishes.resolve,
        agent: agent(request, &members)?,
        sql,
        doors: doors(request)?,
        pass: &wishes.pass,
        local,
        members,
        services,
    })
}

fn is_redirect(profile: Profile) -> bool {
    profile == Profile::Redirect
}

fn has_patroni(request: &Request<'_>) -> bool {
    request.members.iter().all(|member| member.patroni_url.is_some())
}

/// Refuses what a profile cannot tell, instead of leaving it out in silence.
fn check_services(config: &Config, profile: Profile) -> Result<(), Refusal> {
    for (name, service) in &config.services {
        let asks_agent = matches!(profile, Profile::Agent | Profile::AgentBypass);
        if asks_agent && service.pooler_port.is_some() && service.pooler_down == PoolerDown::Bypass
        {
            let needs = "pooler_down = \"shut\" in [services]: HAProxy cannot be led past a pooler by a yes; profile agent-bypass does it by itself";
            return Err(Refusal::ProfileNeeds { profile, needs });
        }
        let refuse = |what| Refusal::CannotTell { service: name.clone(), profile, what };
        let is_limited = service.lag_bytes_max.is_some() || service.lag_max.is_some();
        match profile {
            Profile::Sql if is_limited => return Err(refuse("how far a replica is behind")),
            Profile::Sql if !service.tags.is_empty() => return Err(refuse("tags")),
            Profile::Sql if service.role == Role::StandbyLeader => {
                return Err(refuse("a standby leader from a replica"));
            }
            Profile::Httpchk if service.lag_max.is_some() => {
                return Err(refuse("how far a replica is behind in time"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn members(request: &Request<'_>) -> Result<Vec<Member>, Refusal> {
    let names = request.members.iter().map(|member| member.name.as_str());
    request
        .members
        .iter()
        .zip(labels(names))
        .map(|(found, label)| member(request, found, label))
        .collect()
}

fn member(request: &Request<'_>, found: &Found, label: String) -> Result<Member, Refusal> {
    let postgres = &found.postgres;
    let agent = request.wishes.agent.as_ref();
    let profile = request.wishes.profile;
    let patroni = match (&found.patroni_url, &request.config.cluster.members) {
        (Some(url), Membership::Patroni(patroni)) => Some(patroni_check(url, postgres, patroni)?),
        (Some(_), Membership::Listed(_)) | (None, _) => None,
    };
    if patroni.is_none() && profile == Profile::Httpchk {
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
        by_name: by_name(postgres, request.wishes.resolve),
        is_patroni_here: patroni.as_ref().is_some_and(|check| !check.starts_with("addr ")),
        patroni,
        agent: format!("{}agent-port {agent_port}", agent_addr.unwrap_or_default()),
        page: format!("{}port {http_port}", page_addr.unwrap_or_default()),
        asked_as: asked_as(found),
    })
}

/// The agent's line has words, so a name of more than one stands back behind the host.
fn asked_as(found: &Found) -> String {
    let name = found.name.as_str();
    if is_word(name) { name.to_owned() } else { found.postgres.host().to_owned() }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\$".contains(&byte))
}

fn by_name(endpoint: &Endpoint, resolve: bool) -> String {
    match (endpoint.ip(), resolve) {
        (Some(_), _) => String::new(),
        (None, false) => " init-addr last,libc,none".to_owned(),
        (None, true) => " init-addr last,libc,none resolvers pgsteer:dns".to_owned(),
    }
}

/// How a check gets to the Patroni at `url`.
fn patroni_check(
    url: &str,
    postgres: &Endpoint,
    patroni: &PatroniConfig,
) -> Result<String, Refusal> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let api = Endpoint::parse(rest, None).map_err(|_| Refusal::Unwritable {
        what: "Patroni's address",
        why: "it is no HOST:PORT",
    })?;
    let mut words = Vec::new();
    if api.host() != postgres.host() {
        words.push(format!("addr {}", bracketed(api.host())));
    }
    words.push(format!("port {}", api.port()));
    if scheme == "https" {
        words.push("check-ssl verify required ca-file".to_owned());
        words.push(match &patroni.ca_file {
            Some(file) => path(file)?,
            None => "@system-ca".to_owned(),
        });
        if let Some(file) = &patroni.cert_file {
            words.push(format!("crt {}", path(file)?));
        }
        if api.ip().is_none() {
            words.push(format!("check-sni {0} verifyhost {0}", escape::haproxy(api.host())));
        }
    }
    Ok(words.join(" "))
}

fn path(file: &Path) -> Result<String, Refusal> {
    let text = file.to_str().filter(|text| !text.contains(['\n', '\r']));
    let why = "a path with letters that are none";
    text.map(escape::haproxy).ok_or(Refusal::Unwritable { what: "the path of a file", why })
}

/// A host as it stands in front of a port.
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn agent_listen(config: &Config) -> SocketAddr {
    config.agent.as_ref().map_or(AGENT_LISTEN, |agent| agent.listen)
}

fn services(config: &Config, profile: Profile) -> Result<Vec<Service>, Refusal> {
    let mut services: Vec<(&ServiceName, &ServiceConfig)> = config.services.iter().collect();
    services.sort_by_key(|(name, service)| (service.role, *name));
    let labels = labels(services.iter().map(|(name, _)| name.as_str()));
    let primary = services.iter().position(|(_, service)| service.role == Role::Primary);
    let fallback = primary.and_then(|at| labels.get(at)).cloned();
    let fallback_pooled =
        primary.and_then(|at| services.get(at)).is_some_and(|(_, s)| s.pooler_port.is_some());
    if profile == Profile::AgentBypass && services.iter().all(|(_, s)| s.pooler_port.is_none()) {
        return Err(Refusal::NoPooler);
    }
    services
        .iter()
        .zip(labels)
        .map(|((name, service), label)| {
            let fallback = match (service.fallback_primary, &fallback) {
                (false, _) => None,
                (true, Some(label)) => Some(label.clone()),
                (true, None) => {
                    let what = "where to fall back to without a service for the primary";
                    let service = (*name).clone();
                    return Err(Refusal::CannotTell { service, profile, what });
                }
            };
            let direct = match profile {
                Profile::AgentBypass if service.pooler_port.is_some() => {
                    direct(config, name, service)?
                }
                _ => name.to_string(),
            };
            let is_asked = matches!(profile, Profile::Agent | Profile::AgentBypass);
            if is_asked && !is_word(name.as_str()) {
                let why = "the agent's question has words, so a service has a name of one";
                return Err(Refusal::Unwritable { what: "the name of a service", why });
            }
            Ok(Service {
                name: name.to_string(),
                label,
                listen: service.listen.to_string(),
                port: service.listen.port(),
                role: service.role.as_str(),
                connect_ms: millis(service.connect_timeout),
                pooler_port: service.pooler_port,
                probe: probe(service),
                direct,
                fallback,
                fallback_pooled,
            })
        })
        .collect()
}

/// What the agent is asked of a member whose pooler is down: another service of that role without
/// a pooler, or Patroni's health check of that meaning.
fn direct(config: &Config, name: &ServiceName, service: &ServiceConfig) -> Result<String, Refusal> {
    let is_twin = |other: &ServiceConfig| {
        (other.role, other.pooler_port) == (service.role, None)
            && other.lag_bytes_max == service.lag_bytes_max
            && other.lag_max == service.lag_max
            && other.tags == service.tags
    };
    if let Some((twin, _)) = config.services.iter().find(|(_, other)| is_twin(other)) {
        return Ok(twin.to_string());
    }
    let asks_pooler = config.agent.as_ref().is_some_and(|agent| agent.pooler_port.is_some());
    if asks_pooler || service.lag_max.is_some() {
        return Err(Refusal::NoDirectQuestion(name.clone()));
    }
    Ok(probe(service).trim_start_matches('/').to_owned())
}

/// Patroni's health check for what the service wants.
fn probe(service: &ServiceConfig) -> String {
    let path = match service.role {
        Role::Primary | Role::Unknown => "/primary",
        Role::StandbyLeader => "/standby-leader",
        Role::Replica => "/replica",
    };
    let lag = service.lag_bytes_max.map(|bytes| format!("lag={}", lag_text(bytes)));
    let tags = service
        .tags
        .iter()
        .map(|(tag, value)| format!("tag_{}={}", escape::uri(tag), escape::uri(value)));
    let query: Vec<String> = lag.into_iter().chain(tags).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

fn lag_text(bytes: u64) -> String {
    crate::config::units::size_text(bytes)
}

fn agent(request: &Request<'_>, members: &[Member]) -> Result<Agent, Refusal> {
    let Request { config, wishes, .. } = *request;
    let profile = wishes.profile;
    let asks = matches!(profile, Profile::Agent | Profile::AgentBypass);
    let is_patroni = has_patroni(request);
    if asks && !is_patroni && config.http.is_none() {
        let needs = "a check beside the agent: Patroni, or [http] of pgsteer";
        return Err(Refusal::ProfileNeeds { profile, needs });
    }
    let vocabulary = config.agent.as_ref().map_or(Vocabulary::Admin, |agent| agent.vocabulary);
    Ok(Agent {
        port: wishes.agent.as_ref().map_or(agent_listen(config).port(), Endpoint::port),
        is_guessed: config.agent.is_none(),
        vocabulary: vocabulary.as_str(),
        has_patroni: is_patroni,
        reaches_pooler: is_patroni && members.iter().all(|member| member.is_patroni_here),
    })
}

/// HAProxy's tcp-check has no password to give and asks for no TLS.
fn sql(config: &Config, profile: Profile, is_asked: bool) -> Result<Option<Sql>, Refusal> {
    if !is_asked {
        return Ok(None);
    }
    let refuse = |needs| Refusal::ProfileNeeds { profile, needs };
    let Some(CheckConfig { user, dbname, password_file, sslmode, .. }) = &config.cluster.check
    else {
        return Err(refuse("a login: [check] with user, or --check-user"));
    };
    if password_file.is_some() {
        return Err(refuse(
            "a login without password, because HAProxy cannot give one: trust in pg_hba.conf, and no password_file in [check]",
        ));
    }
    if matches!(sslmode, SslMode::Require | SslMode::VerifyFull) {
        return Err(refuse(
            "a login without TLS, because HAProxy cannot ask PostgreSQL for it: sslmode = \"prefer\" in [check]",
        ));
    }
    Ok(Some(Sql {
        user: printable(user),
        dbname: printable(dbname),
        startup: packet::startup(user, dbname),
        question_text: packet::QUESTION,
        question: packet::question_and_farewell(),
        let_in: packet::LET_IN,
        takes_writes: packet::TAKES_WRITES,
        in_recovery: packet::IN_RECOVERY,
    }))
}

/// For a comment, which ends with its line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn doors(request: &Request<'_>) -> Result<Vec<Door>, Refusal> {
    let Request { config, wishes, .. } = *request;
    if wishes.profile != Profile::Pgsteer {
        return Ok(Vec::new());
    }
    let profile = wishes.profile;
    let Some(http) = &config.http else {
        let needs = "the pages of pgsteer, which its checks ask: [http]";
        return Err(Refusal::ProfileNeeds { profile, needs });
    };
    if wishes.doors.is_empty() {
        let needs = "the hosts where pgsteer runs: --door 10.0.0.21 --door 10.0.0.22";
        return Err(Refusal::ProfileNeeds { profile, needs });
    }
    let names = labels(wishes.doors.iter().map(|door| door.as_str()));
    let door = |(host, label): (&String, String)| -> Result<Door, Refusal> {
        let wrong = Refusal::Unwritable { what: "a front door", why: "it is no host" };
        let endpoint = Endpoint::new(host, http.listen.port()).map_err(|_| wrong)?;
        Ok(Door {
            label,
            host: bracketed(host),
            by_name: by_name(&endpoint, wishes.resolve),
            http_port: http.listen.port(),
        })
    };
    wishes.doors.iter().zip(names).map(door).collect()
}

fn local(request: &Request<'_>, members: &[Member]) -> Result<Option<Member>, Refusal> {
    let profile = request.wishes.profile;
    if !is_redirect(profile) {
        return Ok(None);
    }
    let needs = "the member whose clients come here: --local NAME, or local in [cluster]";
    let name: &MemberName = request
        .config
        .cluster
        .here
        .name
        .as_ref()
        .ok_or(Refusal::ProfileNeeds { profile, needs })?;
    if !is_member(request.members, name) {
        return Err(Refusal::NoSuchMember(name.clone()));
    }
    if !request.wishes.pass.iter().all(|source| is_network(source)) {
        let why = "it is no address and no network as 10.1.0.0/16";
        return Err(Refusal::Unwritable { what: "a source that is let pass", why });
    }
    if request.wishes.pass.is_empty() {
        let needs = "those who are let pass to it: --pass 10.0.0.5 --pass 10.1.0.0/16";
        return Err(Refusal::ProfileNeeds { profile, needs });
    }
    Ok(members.iter().find(|member| member.name == name.as_str()).cloned())
}

/// An address, or a network as `10.1.0.0/16`.
pub fn is_network(text: &str) -> bool {
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let Ok(ip) = ip.parse::<IpAddr>() else { return false };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
}

fn stats(request: &Request<'_>) -> Result<Stats, Refusal> {
    let wishes = request.wishes;
    let login = wishes.stats_login.as_ref();
    let mut usual = HTTP_LISTEN;
    if login.is_none() {
        usual.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let listen = wishes.stats_listen.unwrap_or(usual);
    if login.is_none() && !listen.ip().is_loopback() {
        return Err(Refusal::OpenStats(listen));
    }
    let port = listen.port();
    if let Some(service) = request.config.services.iter().find(|(_, s)| s.listen.port() == port) {
        let other = format!("service {}", service.0);
        return Err(Refusal::PortTaken { what: "statistics".to_owned(), port, other });
    }
    let login = login.map(stats_login).transpose()?;
    let meets_pages = has_pgsteer(wishes.profile)
        && request.config.http.as_ref().is_some_and(|pages| pages.listen.port() == port);
    Ok(Stats { listen: listen.to_string(), login, meets_pages })
}

/// A pgsteer has its part in what HAProxy does, maybe on the same machine.
fn has_pgsteer(profile: Profile) -> bool {
    match profile {
        Profile::Agent | Profile::AgentBypass | Profile::Pgsteer => true,
        Profile::Httpchk | Profile::Sql | Profile::Redirect => false,
    }
}

fn stats_login(login: &StatsLogin) -> Result<String, Refusal> {
    let StatsLogin { user, password } = login;
    let refuse = |why| Refusal::Unwritable { what: "the login for statistics", why };
    if user.is_empty() || user.contains(':') {
        return Err(refuse("a user has a name, without a colon"));
    }
    if password.is_empty() || [user, password].iter().any(|text| text.contains(char::is_control)) {
        return Err(refuse("a password is one line, and not empty"));
    }
    Ok(format!("{user}:{password}"))
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
