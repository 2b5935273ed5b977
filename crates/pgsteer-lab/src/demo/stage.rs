//! The stage: a lab with a pgsteer in front of it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::DemoOptions;
use crate::lab::Lab;
use crate::member::CHECK;
use crate::spawned::Spawned;

const READY_LIMIT: Duration = Duration::from_secs(15);

/// The customary ports, and where to look further if somebody has them.
const CUSTOMARY: [u16; 3] = [5000, 5001, 7000];
const NEXT_TRY: u16 = 10_000;

/// What the stage needs to be set.
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
            bail!("there is no {}; `cargo build -p pgsteer` makes it", options.pgsteer.display());
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

    /// What was typed to start pgsteer, with the program's bare name.
    pub fn command_line(&self) -> String {
        let program = Path::new(&self.words[0]).file_name().unwrap_or_default().to_string_lossy();
        format!("{program} {}", self.words[1..].join(" "))
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

fn words(lab: &Lab, options: &StageOptions, ports: [u16; 3]) -> Result<Vec<String>> {
    let urls = lab.patroni_urls();
    let url = urls.first().context("the lab has no member")?;
    let mut words = vec![options.pgsteer.display().to_string(), "run".to_owned()];
    let mut say = |flag: &str, value: &str| words.extend([flag.to_owned(), value.to_owned()]);
    say("--patroni", url);
    if let Some(url) = lab.etcd_urls().first() {
        say("--etcd", url);
    }
    if !options.without_login {
        let password_file = lab.folder().join("pgcheck.password");
        std::fs::write(&password_file, CHECK).context("cannot write the password file")?;
        say("--check-user", CHECK);
        say("--check-password-file", &password_file.display().to_string());
    }
    for (flag, port) in ["--write", "--read", "--http"].into_iter().zip(ports) {
        say(flag, &format!("127.0.0.1:{port}"));
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
            bail!("pgsteer did not open its ports; it says:\n{}", pgsteer.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
