//! What every benchmark starts from: a cluster with the tables of the application, pgsteer, and HAProxy.

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

/// PostgreSQL must not be the one that turns clients away when all doors open at once: each of
/// them may have ten seconds of clients waiting.
const CONNECTIONS_MAX: u32 = 1_500;

/// Password `app` as SCRAM-SHA-256 with one round of hashing instead of 4,096: what clients of
/// all doors would spend on it is theirs, on other machines, and would only take CPU from the
/// cluster on this one. The messages of the login are the same.
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

/// The release binary that cargo has put beside this one.
pub fn pgsteer_binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let binary = own.with_file_name("pgsteer");
    ensure!(
        binary.is_file(),
        "there is no {}; build it first: cargo build --release",
        binary.display()
    );
    Ok(binary)
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.local_addr().context("no free port")
}

/// A pgsteer that runs, and where.
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
    // What the caller has set for a log of his own must not slow this one down.
    command.env_remove("RUST_LOG");
    Ok(Pgsteer { process: lab.spawn(name, command)?, write })
}

/// So that pgsteer knows of a switchover beforehand, where etcd can tell.
fn etcd_section(lab: &Lab) -> String {
    let urls = lab.etcd_urls();
    if urls.is_empty() { String::new() } else { format!("[etcd]\nurls = {urls:?}\n\n") }
}

/// HAProxy for the write service, checked as `health` says.
#[derive(Debug)]
pub struct HaproxyWish<'a> {
    pub name: &'a str,
    pub timeouts: &'a str,
    /// What stands behind `default-server`.
    pub checks: &'a str,
}

/// Starts a HAProxy that asks each Patroni whether it is primary, and where it listens.
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
                    bail!("{name} lets nobody in: {outcome:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    })
}

/// Every try is a socket, and there are hundreds of them while nobody takes writes.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("cannot raise the limit of open files: {error}");
    }
}
