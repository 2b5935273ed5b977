//! The stage of the demo: a lab with a pgsteer in front of it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::DemoOptions;
use crate::lab::Lab;
use crate::member::APP;
use crate::member::CHECK;
use crate::spawned::Spawned;

const READY_LIMIT: Duration = Duration::from_secs(15);

/// The standard ports, and the step to the next ones to try if they are taken.
const CUSTOMARY: [u16; 3] = [5000, 5001, 7000];
const NEXT_TRY: u16 = 10_000;

/// The options of the stage.
pub type StageOptions = DemoOptions;

/// A lab and the pgsteer in front of it.
#[derive(Debug)]
pub struct Stage<'a> {
    lab: &'a Lab,
    words: Vec<String>,
    ports: [u16; 3],
    _pgsteer: Spawned,
}

impl<'a> Stage<'a> {
    /// Starts pgsteer in front of `lab` and waits until its ports are open.
    pub fn set(lab: &'a Lab, options: &StageOptions) -> Result<Stage<'a>> {
        if !options.pgsteer.is_file() {
            bail!("{} does not exist; run `cargo build -p pgsteer`", options.pgsteer.display());
        }
        let ports = free_ports()?;
        let words = words(lab, options, ports)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let mut pgsteer = lab.spawn("pgsteer", command)?;
        await_ports(&mut pgsteer, ports)?;
        Ok(Stage { lab, words, ports, _pgsteer: pgsteer })
    }

    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// The command line that started pgsteer.
    pub fn command_line(&self) -> String {
        format!("{} {}", self.typed_pgsteer(), self.words[1..].join(" "))
    }

    /// The addresses for clients and for the status pages.
    pub fn addresses(&self) -> String {
        let (write, read, http) = (dsn(self.write_port()), dsn(self.read_port()), self.http_url());
        format!(
            "  writes    psql {write}\n  \
               reads     psql {read}\n  \
               status    {} status --http {http} --watch      or open {http} in a browser\n  \
               metrics   curl {http}/metrics",
            self.typed_pgsteer()
        )
    }

    /// The path of the started program, as a user types it here.
    pub fn typed_pgsteer(&self) -> String {
        typed(Path::new(self.pgsteer()))
    }

    /// The program that was started.
    pub fn pgsteer(&self) -> &str {
        &self.words[0]
    }

    pub fn write_port(&self) -> u16 {
        self.ports[0]
    }

    pub fn read_port(&self) -> u16 {
        self.ports[1]
    }

    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[2])
    }

    pub fn patroni_url(&self, member: &str) -> Result<String> {
        Ok(self.lab.member(member)?.patroni_url())
    }
}

/// The path of a program, from this folder if it is below it.
fn typed(program: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| program.strip_prefix(here).ok());
    below.unwrap_or(program).display().to_string()
}

fn words(lab: &Lab, options: &StageOptions, ports: [u16; 3]) -> Result<Vec<String>> {
    let urls = lab.patroni_urls();
    let url = urls.first().context("the lab has no member")?;
    let mut words = vec![options.pgsteer.display().to_string(), "run".to_owned()];
    let mut add = |flag: &str, value: &str| words.extend([flag.to_owned(), value.to_owned()]);
    add("--patroni", url);
    if let Some(url) = lab.etcd_urls().first() {
        add("--etcd", url);
    }
    if !options.without_login {
        add("--check-user", CHECK);
        add("--check-password-file", &lab.check_password_file()?.display().to_string());
    }
    for (flag, port) in ["--write", "--read", "--http"].into_iter().zip(ports) {
        add(flag, &format!("127.0.0.1:{port}"));
    }
    Ok(words)
}

fn free_ports() -> Result<[u16; 3]> {
    let mut ports = CUSTOMARY;
    while !ports.iter().all(|port| is_free(*port)) {
        for port in &mut ports {
            *port = port.checked_add(NEXT_TRY).context("no free ports found for pgsteer")?;
        }
    }
    Ok(ports)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn await_ports(pgsteer: &mut Spawned, ports: [u16; 3]) -> Result<()> {
    let began = Instant::now();
    let is_open = |port: &u16| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok();
    while !ports.iter().all(is_open) {
        if !pgsteer.is_running() || began.elapsed() > READY_LIMIT {
            bail!("pgsteer did not open its ports; its log:\n{}", pgsteer.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The application's connection string for a port of pgsteer, with the password.
pub fn dsn(port: u16) -> String {
    format!("postgresql://{APP}:{APP}@127.0.0.1:{port}/{APP}")
}
