//! HAProxy's configuration, in seven profiles: the inputs of each, and the variables of its template.

mod members;
mod services;

use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;

use self::members::{Member, by_name, members};
use self::services::{Service, check_services, services};
use super::host::{bracketed, is_network};
use super::label::labels;
use super::reach;
use super::refusal::Refusal;
use super::timing::Timing;
use super::{HaproxyVersion, Profile, Rendered, Request, StatsLogin, is_member, packet, paper};
use pgsteer_config::limits::{AGENT_LISTEN, HTTP_LISTEN};
use pgsteer_core::names::{Endpoint, MemberName};
use pgsteer_core::settings::{CheckConfig, Config, SslMode, Vocabulary};

/// The variables of HAProxy's templates.
#[derive(Serialize)]
struct Page<'a> {
    made_from: &'a str,
    profile: &'a str,
    about: &'a str,
    cluster: String,
    /// Open files of HAProxy at most.
    files_max: usize,
    keepalive_s: u64,
    user_timeout_ms: u64,
    /// This HAProxy version may lose the clients of a server that becomes DOWN.
    loses_connecting_clients: bool,
    /// pgsteer writes to HAProxy's socket.
    is_pushed: bool,
    /// The settings at the end of every server line with a check.
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
    /// A pgsteer that takes part has its pages on the same port.
    meets_pages: bool,
}

#[derive(Serialize)]
struct Agent {
    port: u16,
    /// `pgsteer agent` needs flags for this, because there is no configuration file.
    is_guessed: bool,
    /// It has to listen on IPv6.
    is_v6: bool,
    vocabulary: &'static str,
    /// The check beside the agent goes to Patroni; without Patroni, to pgsteer's pages.
    has_patroni: bool,
    /// That check can test the pooler too, because it is on the same host.
    reaches_pooler: bool,
    /// A member that is not fit any more is drained for this long; 0 for a HAProxy that needs no such time.
    drain_ms: u64,
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

/// Renders the one file of this kind.
pub fn render(request: &Request<'_>) -> Result<Vec<Rendered>, Refusal> {
    let page = page(request)?;
    let template = format!("haproxy/{}.cfg", page.profile);
    let text = paper::fill(&template, request.template, &page)?;
    let is_secret = page.stats.login.is_some();
    Ok(vec![Rendered { path: "haproxy.cfg".to_owned(), text, is_secret }])
}

fn page<'a>(request: &Request<'a>) -> Result<Page<'a>, Refusal> {
    let Request { config, options, .. } = *request;
    let profile = options.profile;
    check_services(config, profile)?;
    check_reach(request)?;
    let members = members(request)?;
    let has_guard = profile == Profile::Sql || !has_patroni(request) && is_redirect(profile);
    let t = match has_guard {
        true => Timing::guarded_within(options.detect)?,
        false => Timing::within(options.detect)?,
    };
    let init_state = has_init_state(request);
    let sql = sql(config, profile, has_guard)?;
    let services = services(config, profile)?;
    let stats = stats(request)?;
    let local = local(request, &members)?;
    Ok(Page {
        made_from: request.made_from,
        profile: profile.as_str(),
        about: profile.about(),
        cluster: config.cluster.label().to_string(),
        files_max: files_max(config, members.len()),
        keepalive_s: config.proxy.keepalive.as_secs(),
        user_timeout_ms: millis(config.proxy.user_timeout),
        loses_connecting_clients: options.haproxy.loses_connecting_clients(),
        is_pushed: profile == Profile::Push,
        server_tail: if init_state { " init-state down".to_owned() } else { String::new() },
        detect_ms: millis(options.detect),
        agent: agent(request, &members, &t)?,
        t,
        stats,
        resolve: options.resolve,
        sql,
        doors: doors(request)?,
        pass: &options.pass,
        local,
        members,
        services,
    })
}

/// Returns true if servers get `init-state down`. HAProxy applies it again when a server leaves maintenance
/// (by its source), and an agent with the words for administration takes servers
/// out of maintenance: a member that the agent reports as fit would wait for a health check.
fn has_init_state(request: &Request<'_>) -> bool {
    let Request { config, options, .. } = *request;
    let leaves_maintenance = asks_agent(options.profile) && vocabulary(config) == Vocabulary::Admin;
    options.haproxy >= HaproxyVersion::INIT_STATE && !leaves_maintenance
}

/// The words of the agents.
fn vocabulary(config: &Config) -> Vocabulary {
    config.agent.as_ref().map_or(Vocabulary::Admin, |agent| agent.vocabulary)
}

/// Two for each client, and some for the listeners, the threads, and each server's checks.
fn files_max(config: &Config, members: usize) -> usize {
    const OTHERS: usize = 100;
    /// Up to two backends for each service, and a health check and an agent check for each server.
    const PER_SERVER: usize = 4;
    2 * config.proxy.sessions_max + OTHERS + PER_SERVER * members * config.services.len()
}

fn is_redirect(profile: Profile) -> bool {
    profile == Profile::Redirect
}

fn has_patroni(request: &Request<'_>) -> bool {
    request.members.iter().all(|member| member.patroni_url.is_some())
}

/// Returns true if the text can be a word of a question to the agent.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\$".contains(&byte))
}

fn agent_listen(config: &Config) -> SocketAddr {
    config.agent.as_ref().map_or(AGENT_LISTEN, |agent| agent.listen)
}

/// The one agent that answers for all members: as named, or that of the only host of `--door`.
fn agent_of_all(request: &Request<'_>) -> Result<Option<Endpoint>, Refusal> {
    let options = request.options;
    match (&options.agent, options.doors.as_slice()) {
        (Some(agent), _) => Ok(Some(agent.clone())),
        (None, [door]) if asks_agent(options.profile) => {
            door_endpoint(door, agent_listen(request.config).port()).map(Some)
        }
        (None, _) => Ok(None),
    }
}

fn asks_agent(profile: Profile) -> bool {
    matches!(profile, Profile::Agent | Profile::AgentBypass)
}

fn door_endpoint(host: &str, port: u16) -> Result<Endpoint, Refusal> {
    let wrong = Refusal::Unwritable { what: "a host of --door", why: "it is not a host" };
    Endpoint::new(host, port).map_err(|_| wrong)
}

/// HAProxy is sent to listeners of pgsteer only where they answer.
fn check_reach(request: &Request<'_>) -> Result<(), Refusal> {
    const HAPROXY: &str = "HAProxy";
    let Request { config, options, .. } = *request;
    let pages = config.http.as_ref().map(|http| http.listen);
    if options.profile == Profile::Pgsteer {
        let doors = || options.doors.iter().map(String::as_str);
        for (name, service) in &config.services {
            reach::check(&format!("service {name}"), service.listen, HAPROXY, doors())?;
        }
        return pages.map_or(Ok(()), |pages| reach::check("[http]", pages, HAPROXY, doors()));
    }
    // An agent that is named may be another pgsteer's.
    if !asks_agent(options.profile) || options.agent.is_some() {
        return Ok(());
    }
    let hosts: Vec<&str> = match options.doors.as_slice() {
        [door] => vec![door],
        _ => request.members.iter().map(|member| member.postgres.host()).collect(),
    };
    if let Some(agent) = &config.agent {
        reach::check("[agent]", agent.listen, HAPROXY, hosts.iter().copied())?;
    }
    match pages.filter(|_| !has_patroni(request)) {
        Some(pages) => reach::check("[http]", pages, HAPROXY, hosts.iter().copied()),
        None => Ok(()),
    }
}

fn agent(request: &Request<'_>, members: &[Member], t: &Timing) -> Result<Agent, Refusal> {
    let Request { config, options, .. } = *request;
    let profile = options.profile;
    let is_patroni = has_patroni(request);
    if asks_agent(profile) && !is_patroni && config.http.is_none() {
        let needs = "a check beside the agent: Patroni, or [http] of pgsteer";
        return Err(Refusal::ProfileNeeds { profile, needs });
    }
    Ok(Agent {
        port: agent_of_all(request)?.map_or(agent_listen(config).port(), |agent| agent.port()),
        is_guessed: config.agent.is_none(),
        is_v6: agent_of_all(request)?.is_none() && members.iter().any(Member::is_v6),
        vocabulary: vocabulary(config).as_str(),
        has_patroni: is_patroni,
        // At least two checks fall into this time.
        drain_ms: if options.haproxy.loses_connecting_clients() { 3 * t.agent_ms } else { 0 },
        reaches_pooler: is_patroni && members.iter().all(|member| member.is_patroni_here),
    })
}

/// Builds the inputs of the SQL checks. HAProxy's tcp-check can send no password and does not
/// request TLS.
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
    if matches!(sslmode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) {
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

/// Makes a text safe for a comment, which ends with its line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn doors(request: &Request<'_>) -> Result<Vec<Door>, Refusal> {
    let Request { config, options, .. } = *request;
    if options.profile != Profile::Pgsteer {
        return Ok(Vec::new());
    }
    let profile = options.profile;
    let Some(http) = &config.http else {
        let needs = "the pages of pgsteer, which its checks ask: [http]";
        return Err(Refusal::ProfileNeeds { profile, needs });
    };
    if options.doors.is_empty() {
        let needs = "the hosts where pgsteer runs: --door 10.0.0.21 --door 10.0.0.22";
        return Err(Refusal::ProfileNeeds { profile, needs });
    }
    let names = labels(options.doors.iter().map(|door| door.as_str()));
    let door = |(host, label): (&String, String)| -> Result<Door, Refusal> {
        let endpoint = door_endpoint(host, http.listen.port())?;
        Ok(Door {
            label,
            host: bracketed(host),
            by_name: by_name(&endpoint, options.resolve),
            http_port: http.listen.port(),
        })
    };
    options.doors.iter().zip(names).map(door).collect()
}

fn local(request: &Request<'_>, members: &[Member]) -> Result<Option<Member>, Refusal> {
    let profile = request.options.profile;
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
    if !request.options.pass.iter().all(|source| is_network(source)) {
        let why = "it is neither an address nor a network such as 10.1.0.0/16";
        return Err(Refusal::Unwritable { what: "a source of --pass", why });
    }
    if request.options.pass.is_empty() {
        let needs = "the sources that are routed to it: --pass 10.0.0.5 --pass 10.1.0.0/16";
        return Err(Refusal::ProfileNeeds { profile, needs });
    }
    Ok(members.iter().find(|member| member.name == name.as_str()).cloned())
}

fn stats(request: &Request<'_>) -> Result<Stats, Refusal> {
    let options = request.options;
    let login = options.stats_login.as_ref();
    let mut usual = HTTP_LISTEN;
    if login.is_none() {
        usual.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let listen = options.stats_listen.unwrap_or(usual);
    if login.is_none() && !listen.ip().is_loopback() {
        return Err(Refusal::OpenStats(listen));
    }
    let port = listen.port();
    if let Some(service) = request.config.services.iter().find(|(_, s)| s.listen.port() == port) {
        let other = format!("service {}", service.0);
        return Err(Refusal::PortTaken { what: "statistics".to_owned(), port, other });
    }
    let login = login.map(stats_login).transpose()?;
    let meets_pages = has_pgsteer(options.profile)
        && request.config.http.as_ref().is_some_and(|pages| pages.listen.port() == port);
    Ok(Stats { listen: listen.to_string(), login, meets_pages })
}

/// Returns true if a pgsteer takes part in HAProxy's routing, possibly on the same machine.
fn has_pgsteer(profile: Profile) -> bool {
    match profile {
        Profile::Agent | Profile::AgentBypass | Profile::Push | Profile::Pgsteer => true,
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
