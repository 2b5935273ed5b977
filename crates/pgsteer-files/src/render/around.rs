//! The other files around the cluster: the inputs of each kind, and the variables of its templates.

use std::net::IpAddr;

use serde::Serialize;

use super::host::{bracketed, is_network};
use super::label::labels;
use super::panels::{PANELS, Panel};
use super::reach;
use super::refusal::Refusal;
use super::{Kind, Rendered, Request, haproxy, paper};
use pgsteer_config::limits::HTTP_LISTEN;
use pgsteer_core::claim::Role;
use pgsteer_core::names::ServiceName;
use pgsteer_core::settings::{Config, ServiceConfig};

/// The highest priority of keepalived that is used; 255 is for the owner of the address.
const PRIORITY_MAX: usize = 200;
/// The maximum length of an interface name in Linux.
const INTERFACE_MAX: usize = 15;
/// The maximum number of hosts of `--door` that share an address.
const DOORS_MAX: usize = 64;
/// The lag for an alert if no service has a limit.
const LAG_BYTES: u64 = 64 << 20;

/// The variables of the templates.
#[derive(Serialize)]
struct Page<'a> {
    made_from: &'a str,
    cluster: String,
    method: &'static str,
    repmgr: bool,
    http_port: u16,
    /// pgsteer's pages, for a program on the same machine: `127.0.0.1:7000`.
    pages: String,
    /// A service leads through PgBouncer.
    is_pooled: bool,
    sessions_max: usize,
    check: Login<'a>,
    members: Vec<Host>,
    /// The hosts of pgsteer; the members if no other hosts are configured.
    doors: Vec<Host>,
    /// True if no other hosts are configured.
    on_members: bool,
    services: Vec<Service>,
    vip: Option<&'a str>,
    /// The hosts that clients connect to.
    hosts: Vec<Host>,
    /// The maximum time that clients wait, in seconds.
    wait: u64,
    lag_bytes: u64,
    panels: &'a [Panel],
}

#[derive(Serialize)]
struct Login<'a> {
    user: &'a str,
    dbname: &'a str,
}

#[derive(Clone, Serialize)]
struct Host {
    /// The host as written.
    name: String,
    label: String,
    /// The host as written before a port.
    host: String,
    /// The host in pg_hba.conf: an address with its full prefix length, or a name.
    network: String,
    priority: usize,
}

#[derive(Serialize)]
struct Service {
    name: String,
    title: String,
    role: &'static str,
    port: u16,
    uri: String,
    authority: String,
    host_list: String,
    port_list: String,
    hosts_json: String,
}

const PGSTEER_SERVICE: &str = include_str!("../../../../dist/pgsteer.service");
const AGENT_SERVICE: &str = include_str!("../../../../dist/pgsteer-agent.service");
const AGENT_ENV: &str = include_str!("../../../../dist/agent.env");

/// Renders the files of any kind except HAProxy's.
pub fn render(kind: Kind, request: &Request<'_>) -> Result<Vec<Rendered>, Refusal> {
    let page = page(kind, request)?;
    let one = |path: &str, template: &str, own: Option<&str>| -> Result<Rendered, Refusal> {
        let text = paper::fill(&format!("around/{template}"), own, &page)?;
        Ok(plain(path, text))
    };
    let own = request.template;
    Ok(match kind {
        Kind::Haproxy => haproxy::render(request)?,
        Kind::PgHba => vec![
            one("pg_hba.pgsteer.conf", "pg_hba.conf", own)?,
            one("check_role.sql", "check_role.sql", None)?,
        ],
        Kind::Keepalived => keepalived(request, &page)?,
        Kind::Pgbouncer => vec![pgbouncer(request, &page)?],
        Kind::Prometheus => vec![
            one("pgsteer.rules.yml", "prometheus-rules.yml", own)?,
            one("pgsteer.scrape.yml", "prometheus-scrape.yml", None)?,
        ],
        Kind::Clients => vec![one("clients.md", "clients.md", own)?],
        Kind::Systemd => vec![
            plain("pgsteer.service", own.unwrap_or(PGSTEER_SERVICE).to_owned()),
            plain("pgsteer-agent.service", AGENT_SERVICE.to_owned()),
            plain("agent.env", AGENT_ENV.to_owned()),
        ],
        Kind::Consul => vec![one("pgsteer.json", "consul.json", own)?],
        Kind::Ansible => ansible(request)?,
        Kind::Grafana => vec![one("pgsteer.json", "grafana.json", own)?],
    })
}

fn plain(path: &str, text: String) -> Rendered {
    Rendered { path: path.to_owned(), text, is_secret: false }
}

fn page<'a>(kind: Kind, request: &Request<'a>) -> Result<Page<'a>, Refusal> {
    let Request { config, options, made_from, .. } = *request;
    let members: Vec<&str> = request.members.iter().map(|member| member.postgres.host()).collect();
    let members = places(&members);
    let doors: Vec<&str> = options.doors.iter().map(String::as_str).collect();
    let doors = if doors.is_empty() { members.clone() } else { places(&doors) };
    let vip = options.vip.as_deref();
    let hosts = match vip {
        Some(vip) => places(&[vip_address(vip, &doors)?.to_string().as_str()]),
        None => doors.clone(),
    };
    check_reach(kind, config, &doors, &hosts)?;
    let pages = config.http.as_ref().map_or(HTTP_LISTEN, |http| http.listen);
    let hold = config.services.values().map(|service| service.hold.as_secs()).max();
    let lag = config.services.values().filter_map(|service| service.lag_bytes_max).min();
    Ok(Page {
        made_from,
        cluster: config.cluster.label().to_string(),
        method: if options.trust { "trust" } else { "scram-sha-256" },
        repmgr: options.repmgr,
        http_port: pages.port(),
        pages: reach::locally(pages).to_string(),
        is_pooled: config.services.values().any(|service| service.pooler_port.is_some()),
        sessions_max: config.proxy.sessions_max,
        check: login(kind, config)?,
        services: services(config, &tried(&hosts)),
        members,
        doors,
        on_members: options.doors.is_empty(),
        vip,
        hosts,
        wait: hold.unwrap_or_default() + 5,
        lag_bytes: lag.unwrap_or(LAG_BYTES),
        panels: &PANELS,
    })
}

/// Clients and programs are sent to listeners of pgsteer only where they answer.
fn check_reach(kind: Kind, config: &Config, doors: &[Host], hosts: &[Host]) -> Result<(), Refusal> {
    fn names(places: &[Host]) -> impl Iterator<Item = &str> + Clone {
        places.iter().map(|place| place.name.as_str())
    }
    if matches!(kind, Kind::Prometheus | Kind::Consul | Kind::Keepalived) && config.http.is_none() {
        let needs = "the pages of pgsteer: `listen` in [http]";
        return Err(Refusal::KindNeeds { kind, needs });
    }
    if kind == Kind::Prometheus
        && let Some(http) = &config.http
    {
        reach::check("[http]", http.listen, "Prometheus", names(doors))?;
    }
    if matches!(kind, Kind::Clients | Kind::Keepalived) {
        for (name, service) in &config.services {
            let what = format!("service {name}");
            reach::check(&what, service.listen, "a client", names(hosts))?;
        }
    }
    Ok(())
}

/// The hosts of a client's list. A single host is there twice: a driver that gets 57P03 tries the next
/// host, and fails if there is none.
fn tried(hosts: &[Host]) -> Vec<Host> {
    match hosts {
        [only] => vec![only.clone(), only.clone()],
        several => several.to_vec(),
    }
}

fn places(hosts: &[&str]) -> Vec<Host> {
    let place = |(at, (host, label)): (usize, (&&str, String))| {
        let network = match host.parse() {
            Ok(IpAddr::V4(ip)) => format!("{ip}/32"),
            Ok(IpAddr::V6(ip)) => format!("{ip}/128"),
            Err(_) => (*host).to_owned(),
        };
        let priority = PRIORITY_MAX.saturating_sub(at);
        Host { name: (*host).to_owned(), label, host: bracketed(host), network, priority }
    };
    hosts.iter().zip(labels(hosts.iter().copied())).enumerate().map(place).collect()
}

/// Parses the virtual address: one that a machine can have, and that is not an own address of a host
/// of `--door`.
fn vip_address(text: &str, doors: &[Host]) -> Result<IpAddr, Refusal> {
    let refuse = |why| Refusal::Vip { text: text.to_owned(), why };
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().map_err(|_| refuse("it is not an address"))?;
    if !is_network(text) || bits.is_some_and(|bits| bits.parse() == Ok(0)) {
        return Err(refuse("it is not a valid network"));
    }
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return Err(refuse("a machine cannot share it with others"));
    }
    let is_taken = doors.iter().any(|door| door.name.parse() == Ok(ip));
    if is_taken { Err(refuse("a host of --door has it already")) } else { Ok(ip) }
}

fn login(kind: Kind, config: &Config) -> Result<Login<'_>, Refusal> {
    match &config.cluster.check {
        Some(check)
            if [&check.user, &check.dbname].iter().any(|it| it.contains(char::is_control)) =>
        {
            let why = "a name with a control character ends its line";
            Err(Refusal::Unwritable { what: "the login of the checks", why })
        }
        Some(check) => Ok(Login { user: &check.user, dbname: &check.dbname }),
        None if kind == Kind::PgHba => {
            let needs = "the login of the checks: [check] with user, or --check-user";
            Err(Refusal::KindNeeds { kind, needs })
        }
        None => Ok(Login { user: "", dbname: "" }),
    }
}

fn services(config: &Config, hosts: &[Host]) -> Vec<Service> {
    let mut services: Vec<(&ServiceName, &ServiceConfig)> = config.services.iter().collect();
    services.sort_by_key(|(name, service)| (service.role, *name));
    services.into_iter().map(|(name, service)| of_clients(name, service, hosts)).collect()
}

fn of_clients(name: &ServiceName, service: &ServiceConfig, hosts: &[Host]) -> Service {
    let port = service.listen.port();
    let join = |each: &dyn Fn(&Host) -> String, by: &str| {
        hosts.iter().map(each).collect::<Vec<_>>().join(by)
    };
    let authority = join(&|host| format!("{}:{port}", host.host), ",");
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    Service {
        name: name.to_string(),
        title: title(name.as_str()),
        role: service.role.as_str(),
        port,
        uri: format!("postgresql://app@{authority}/app"),
        authority,
        host_list: names.join(","),
        port_list: join(&|_| port.to_string(), ","),
        hosts_json: serde_json::to_string(&names).unwrap_or_default(),
    }
}

/// Formats a part of an alert's name.
fn title(name: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        first.to_uppercase() + rest
    };
    name.split(|c: char| !c.is_ascii_alphanumeric()).map(word).collect()
}

/// Renders one file for each host of `--door`.
fn keepalived(request: &Request<'_>, page: &Page<'_>) -> Result<Vec<Rendered>, Refusal> {
    #[derive(Serialize)]
    struct Door<'a> {
        #[serde(flatten)]
        page: &'a Page<'a>,
        door: &'a Host,
        /// The address of pgsteer's pages, seen from this host.
        door_pages: String,
        service: &'a str,
        interface: &'a str,
        router_id: u8,
    }
    let kind = Kind::Keepalived;
    let refuse = |needs| Refusal::KindNeeds { kind, needs };
    let options = request.options;
    let vip = page.vip.ok_or(refuse("the address that moves: --vip 10.0.0.20/24"))?;
    let ip = vip_address(vip, &page.doors)?;
    if options.doors.len() < 2 || options.doors.len() > DOORS_MAX {
        return Err(refuse("2 to 64 hosts of pgsteer: --door 10.0.0.21 --door 10.0.0.22"));
    }
    let is_of_kind =
        |door: &Host| door.name.parse::<IpAddr>().is_ok_and(|door| door.is_ipv4() == ip.is_ipv4());
    if !page.doors.iter().all(is_of_kind) {
        return Err(refuse("hosts of --door by addresses of the same family as --vip"));
    }
    let interface = options.interface.as_deref().unwrap_or("eth0");
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    if !(1..=INTERFACE_MAX).contains(&interface.len()) || !interface.bytes().all(is_of_name) {
        return Err(refuse("an interface: --interface eth0"));
    }
    let mut services = request.config.services.iter();
    let writes = services.find(|(_, service)| service.role == Role::Primary);
    let (service, _) = writes.ok_or(refuse("a service for the primary"))?;
    if !service.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
        return Err(refuse("a service whose name is one plain word"));
    }
    page.doors
        .iter()
        .map(|door| {
            let router_id = options.router_id;
            let door_page = Door {
                page,
                door,
                door_pages: door_pages(request.config, page, door),
                service: service.as_str(),
                interface,
                router_id,
            };
            let text = paper::fill("around/keepalived.conf", request.template, &door_page)?;
            Ok(plain(&format!("keepalived-{}.conf", door.label), text))
        })
        .collect()
}

/// A listener on the address of one host stands for the same listener on each host.
fn door_pages(config: &Config, page: &Page<'_>, door: &Host) -> String {
    let listens_on = |place: &Host| {
        let own = config.http.as_ref().map(|http| http.listen.ip());
        own.is_some_and(|own| place.name.parse() == Ok(own))
    };
    match page.doors.iter().any(listens_on) {
        true => format!("{}:{}", door.host, page.http_port),
        false => page.pages.clone(),
    }
}

fn pgbouncer(request: &Request<'_>, page: &Page<'_>) -> Result<Rendered, Refusal> {
    #[derive(Serialize)]
    struct Pooler<'a> {
        #[serde(flatten)]
        page: &'a Page<'a>,
        pooler_port: u16,
        postgres_port: u16,
        pooled: Vec<&'a str>,
    }
    let kind = Kind::Pgbouncer;
    let refuse = |needs| Refusal::KindNeeds { kind, needs };
    let pooled = || request.config.services.iter().filter_map(|(n, s)| Some((n, s.pooler_port?)));
    let one_of = |mut ports: Vec<u16>, needs| {
        ports.sort_unstable();
        ports.dedup();
        if let [port] = ports.as_slice() { Ok(*port) } else { Err(refuse(needs)) }
    };
    let ports = pooled().map(|(_, port)| port).collect();
    let pooler_port = one_of(ports, "one pooler_port in all [services] that have one")?;
    let ports = request.members.iter().map(|member| member.postgres.port()).collect();
    let postgres_port = one_of(ports, "members whose PostgreSQL has the same port")?;
    if pooler_port == postgres_port {
        let (what, other) = ("the pooler".to_owned(), "PostgreSQL".to_owned());
        return Err(Refusal::PortTaken { what, port: pooler_port, other });
    }
    let pooled = pooled().map(|(name, _)| name.as_str()).collect();
    let text = paper::fill(
        "around/pgbouncer.ini",
        request.template,
        &Pooler { page, pooler_port, postgres_port, pooled },
    )?;
    Ok(plain("pgbouncer.ini", text))
}

/// Renders a role with HAProxy's file, which it installs only if HAProxy accepts the file.
fn ansible(request: &Request<'_>) -> Result<Vec<Rendered>, Refusal> {
    #[derive(Serialize)]
    struct RoleFiles<'a> {
        made_from: &'a str,
        mode: &'static str,
    }
    let mut files = haproxy::render(&Request { template: None, ..*request })?;
    let is_secret = files.iter().any(|file| file.is_secret);
    let mode = if is_secret { "0600" } else { "0644" };
    let role = RoleFiles { made_from: request.made_from, mode };
    for file in &mut files {
        file.path = format!("roles/pgsteer_haproxy/files/{}", file.path);
    }
    let parts = [
        ("roles/pgsteer_haproxy/tasks/main.yml", "ansible/tasks.yml", request.template),
        ("roles/pgsteer_haproxy/handlers/main.yml", "ansible/handlers.yml", None),
        ("site.yml", "ansible/site.yml", None),
    ];
    for (path, template, own) in parts {
        files.push(plain(path, paper::fill(&format!("around/{template}"), own, &role)?));
    }
    Ok(files)
}
