//! The programs in the network namespace of each member.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use pgsteer_lab::{CHECK, Lab, Member, SCOPE, Spawned, member_namespace, which};

/// The interface of every member.
const INTERFACE: &str = "eth0";

/// A program that moves an address.
#[derive(Debug)]
pub enum Program<'a> {
    /// `pgsteer agent` with `[vip]`.
    Pgsteer { binary: &'a Path, vip: Ipv4Addr },
    /// vip-manager with its default interval of 1 s.
    VipManager { binary: &'a Path, vip: Ipv4Addr },
}

/// One program for each member. Dropping this kills them.
#[derive(Debug)]
pub struct Programs {
    _all: Vec<Spawned>,
}

/// At each member a HAProxy that forwards every connection to the member's PostgreSQL, which listens on its
/// own address only. Both programs' clients use it.
#[derive(Debug)]
pub struct Forwarders {
    _all: Vec<Spawned>,
}

impl Forwarders {
    /// Starts them at `port` of all addresses of each member.
    pub fn start(lab: &Lab, port: u16) -> Result<Forwarders> {
        let haproxy =
            which("haproxy").context("there is no haproxy; run scripts/install-lab.sh")?;
        let all = lab.members().iter().map(|member| {
            let name = format!("forward-{}", member.name);
            let file = lab.folder().join(format!("{name}.cfg"));
            let text = format!(
                "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1m\n    \
                 timeout server 1m\n\nlisten postgres\n    bind 0.0.0.0:{port}\n    server it {}\n",
                member.postgres_addr()
            );
            std::fs::write(&file, text).context("cannot write a configuration of HAProxy")?;
            let mut command = inside(lab, member, &haproxy);
            command.arg("-db").arg("-f").arg(&file);
            lab.spawn(&name, command)
        });
        Ok(Forwarders { _all: all.collect::<Result<_>>()? })
    }
}

impl Programs {
    /// Starts the program at each member.
    pub fn start(lab: &Lab, program: &Program<'_>) -> Result<Programs> {
        let all = lab.members().iter().map(|member| {
            let (kind, command) = match program {
                Program::Pgsteer { binary, vip } => {
                    ("pgsteer", pgsteer(lab, member, binary, *vip)?)
                }
                Program::VipManager { binary, vip } => {
                    ("vip-manager", vip_manager(lab, member, binary, *vip))
                }
            };
            lab.spawn(&format!("{kind}-{}", member.name), command)
        });
        Ok(Programs { _all: all.collect::<Result<_>>()? })
    }
}

fn pgsteer(lab: &Lab, member: &Member, binary: &Path, vip: Ipv4Addr) -> Result<Command> {
    let file = lab.folder().join(format!("pgsteer-{}.toml", member.name));
    let urls: Vec<String> = lab.patroni_urls().iter().map(|url| format!("'{url}'")).collect();
    let text = format!(
        "[patroni]\nurls = [{}]\n[check]\nuser = '{CHECK}'\npassword_file = '{}'\n\
         [vip.db]\naddress = '{vip}/24'\ninterface = '{INTERFACE}'\n",
        urls.join(", "),
        lab.check_password_file()?.display()
    );
    std::fs::write(&file, text).context("cannot write a configuration of pgsteer")?;
    let mut command = inside(lab, member, binary);
    command.args(["agent", "--config"]).arg(&file);
    command.env_remove("STATE_DIRECTORY").env_remove("XDG_STATE_HOME").env_remove("HOME");
    Ok(command)
}

fn vip_manager(lab: &Lab, member: &Member, binary: &Path, vip: Ipv4Addr) -> Command {
    let endpoints: Vec<String> = lab.members().iter().map(Member::etcd_url).collect();
    let mut command = inside(lab, member, binary);
    command.args(["--ip", &vip.to_string(), "--netmask", "24", "--interface", INTERFACE]);
    command.args(["--trigger-key", &format!("/service/{SCOPE}/leader")]);
    command.args(["--trigger-value", &member.name, "--dcs-type", "etcd"]);
    command.args(["--dcs-endpoints", &endpoints.join(",")]);
    command
}

/// The version as vip-manager prints it.
pub fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let version = text.lines().next().unwrap_or("unknown").trim_start_matches("version: ");
    format!("vip-manager {version}")
}

fn inside(lab: &Lab, member: &Member, program: &Path) -> Command {
    let namespace = member_namespace(lab.id(), &member.name);
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}
