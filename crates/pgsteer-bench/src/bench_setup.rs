//! The base of every benchmark: a cluster with the application's tables, pgsteer, and HAProxy.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};

use pgsteer_lab::Lab;
use pgsteer_lab::Session;
use pgsteer_lab::Spawned;
use pgsteer_lab::{APP, CHECK, SUPERUSER};
use pgsteer_lab::{LabOptions, Network};

/// PostgreSQL must not refuse clients when all paths recover at once: each of them may have ten
/// seconds of waiting clients.
const CONNECTIONS_MAX: u32 = 1_500;

/// Password `app` as SCRAM-SHA-256 with one round of hashing instead of 4,096. In production the
/// clients hash on other machines; here their hashing would only take CPU from the cluster. The
/// messages of the login are the same.
const APP_VERIFIER: &str = "SCRAM-SHA-256$1:cGdzdGVlci1sYWItc2FsdA==\
    $meXcmKs/qh9FnOvlaNIoT9ENgIzTMfBQKmiT79HFtjE=:R03cc78SouDYGWCX6fj54Vk706C8rFQg3oItAUQ3ZDc=";

const SQL_LIMIT: Duration = Duration::from_secs(60);

/// A cluster for a benchmark.
pub fn start_lab(network: Network, members: usize) -> Result<Lab> {
    raise_file_limit();
    let options =
        LabOptions { network, members, connections_max: CONNECTIONS_MAX, ..LabOptions::default() };
    let lab = Lab::start(options)?;
    let primary = lab.primary()?;
    lab.sql(&primary.name, &format!("ALTER ROLE {APP} PASSWORD '{APP_VERIFIER}'"))?;
    Ok(lab)
}

/// Runs SQL as the superuser in the application's database, on the primary.
pub fn app_sql(lab: &Lab, sql: &str) -> Result<()> {
    let primary = lab.primary()?;
    let mut session = Session::connect(primary.postgres_addr(), SUPERUSER, APP, SQL_LIMIT)?;
    session.query(sql, SQL_LIMIT).with_context(|| format!("{sql:?}"))?;
    Ok(())
}

/// The release binary beside this one.
pub fn pgsteer_binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the path of this program")?;
    let binary = own.with_file_name("pgsteer");
    ensure!(
        binary.is_file(),
        "{} does not exist; run `cargo build --release` first",
        binary.display()
    );
    Ok(binary)
}

/// An address of this machine without a listener.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.local_addr().context("no free port")
}

/// A running pgsteer and its address.
#[derive(Debug)]
pub struct Pgsteer {
    pub process: Spawned,
    pub write: SocketAddr,
}

/// Starts pgsteer with a file as an operator would write it.
pub fn start_pgsteer(lab: &Lab, binary: &Path, name: &str) -> Result<Pgsteer> {
    let (write, read, http) = (free_address()?, free_address()?, free_address()?);
    let password = lab.check_password_file()?;
    let text = format!(
        "[patroni]\nurls = {:?}\n\n{}\
         [check]\nuser = \"{CHECK}\"\npassword_file = {:?}\n\n\
         [services.write]\nlisten = \"{write}\"\nhold_seconds = 30\n\n\
         [services.read]\nlisten = \"{read}\"\nrole = \"replica\"\n\n\
         [http]\nlisten = \"{http}\"\n",
        lab.patroni_urls(),
        etcd_section(lab),
        password.display().to_string(),
    );
    let config = lab.folder().join(format!("{name}.toml"));
    std::fs::write(&config, text).context("cannot write the configuration of pgsteer")?;
    let mut command = Command::new(binary);
    command.args(["run", "--log-format", "json", "--config"]).arg(&config);
    // The caller's log settings must not slow this process down.
    command.env_remove("RUST_LOG");
    Ok(Pgsteer { process: lab.spawn(name, command)?, write })
}

/// Makes pgsteer watch etcd, where etcd contains Patroni's keys for the v3 API, so that it learns
/// of a switchover beforehand.
fn etcd_section(lab: &Lab) -> String {
    let urls = lab.etcd_urls();
    if urls.is_empty() { String::new() } else { format!("[etcd]\nurls = {urls:?}\n\n") }
}

/// HAProxy for the write service, with these timeouts and checks.
#[derive(Debug)]
pub struct HaproxyWish<'a> {
    pub name: &'a str,
    pub timeouts: &'a str,
    /// The text after `default-server`.
    pub checks: &'a str,
}

/// Starts a HAProxy that checks `/primary` of each Patroni. Returns the process and its address.
pub fn start_haproxy(lab: &Lab, wish: &HaproxyWish<'_>) -> Result<(Spawned, SocketAddr)> {
    let listen = free_address()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let servers: String = lab
        .members()
        .iter()
        .map(|member| {
            let (name, addr) = (&member.name, member.postgres_addr());
            format!("    server {name} {addr} check port {}\n", member.patroni_port)
        })
        .collect();
    let text = format!(
        "global\n    maxconn 5000\n    nbthread {cores}\n\n\
         defaults\n    mode tcp\n{}\n\
         listen primary\n    bind {listen}\n    option httpchk OPTIONS /primary\n    \
         http-check expect status 200\n    default-server {}\n{servers}",
        wish.timeouts, wish.checks
    );
    Ok((lab.haproxy(wish.name, &text)?, listen))
}

/// Waits until a client can log in here.
pub fn wait_for_door(name: &str, addr: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        loop {
            let login = pgsteer_lab::scram_client::Client::login(addr);
            match tokio::time::timeout(Duration::from_secs(2), login).await {
                Ok(Ok(client)) => {
                    client.leave().await;
                    return Ok(());
                }
                outcome if Instant::now() > deadline => {
                    bail!("{name} serves no client: {outcome:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    })
}

/// Every try needs a socket, and hundreds wait while no member takes writes.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("cannot raise the limit of open files: {error}");
    }
}
