//! The network of a lab with namespaces: a switch, a cable to each member, and one to the host.
//!
//! The switch is a bridge in its own namespace, so that no firewall of the host filters the traffic
//! between members. ARP entries are permanent. Without them the kernel would soon report an
//! unplugged member as "no route to host", and a test needs silent packet loss.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::address::Subnet;
use crate::member::Member;

/// The bridge's name inside the namespace of the switch.
const BRIDGE: &str = "br0";
/// The switch's port to the host, and the name of the member's interface.
const HOST_PORT: &str = "host";
const MEMBER_INTERFACE: &str = "eth0";

/// The guardian removes everything whose name begins with this prefix, so both must agree.
pub fn member_namespace(id: &str, member: &str) -> String {
    format!("pgl-{id}-{member}")
}

fn switch_namespace(id: &str) -> String {
    format!("pgl-{id}-switch")
}

fn host_interface(id: &str) -> String {
    format!("pgl{id}")
}

pub fn build(id: &str, subnet: &Subnet, members: &[Member]) -> Result<()> {
    run_ip(None, &host_side(id, subnet, members))?;
    run_ip(Some(&switch_namespace(id)), &switch_side(id, members))?;
    for member in members {
        let namespace = member_namespace(id, &member.name);
        run_ip(Some(&namespace), &member_side(subnet, members, member))?;
    }
    Ok(())
}

/// Removes the member's port from the bridge. The cable stays plugged in at the member, so the
/// member sees its link as up.
pub fn unplug(id: &str, member: &str) -> Result<()> {
    run_ip(Some(&switch_namespace(id)), &[format!("link set {member} nomaster")])
}

pub fn plug(id: &str, member: &str) -> Result<()> {
    run_ip(Some(&switch_namespace(id)), &[format!("link set {member} master {BRIDGE}")])
}

fn host_side(id: &str, subnet: &Subnet, members: &[Member]) -> Vec<String> {
    let switch = switch_namespace(id);
    let interface = host_interface(id);
    let mut lines = vec![format!("netns add {switch}")];
    lines.extend(
        members.iter().map(|member| format!("netns add {}", member_namespace(id, &member.name))),
    );
    lines.push(format!(
        "link add {interface} address {} type veth peer name {HOST_PORT} netns {switch}",
        mac(subnet.host())
    ));
    lines.push(format!("addr add {}/24 dev {interface}", subnet.host()));
    lines.push(format!("link set {interface} up"));
    lines.extend(members.iter().map(|member| neighbour(member.ip, &interface)));
    lines
}

fn switch_side(id: &str, members: &[Member]) -> Vec<String> {
    let mut lines = vec![
        format!("link add {BRIDGE} type bridge"),
        format!("link set {BRIDGE} up"),
        format!("link set {HOST_PORT} master {BRIDGE} up"),
    ];
    for Member { name, ip, .. } in members {
        let namespace = member_namespace(id, name);
        lines.push(format!(
            "link add {name} type veth peer name {MEMBER_INTERFACE} address {} netns {namespace}",
            mac(*ip)
        ));
        lines.push(format!("link set {name} master {BRIDGE} up"));
    }
    lines
}

fn member_side(subnet: &Subnet, members: &[Member], member: &Member) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("addr add {}/24 dev {MEMBER_INTERFACE}", member.ip),
        format!("link set {MEMBER_INTERFACE} up"),
    ];
    let others = members.iter().map(|other| other.ip);
    lines.extend(
        others
            .chain([subnet.host()])
            .filter(|ip| *ip != member.ip)
            .map(|ip| neighbour(ip, MEMBER_INTERFACE)),
    );
    lines
}

fn neighbour(ip: Ipv4Addr, interface: &str) -> String {
    format!("neigh replace {ip} lladdr {} dev {interface} nud permanent", mac(ip))
}

/// A locally administered MAC address that contains the IP address.
fn mac(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("02:70:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn run_ip(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip")?;
    if let Some(mut stdin) = child.stdin.take() {
        let text = lines.join("\n") + "\n";
        stdin.write_all(text.as_bytes()).context("cannot write to ip")?;
    }
    let output = child.wait_with_output().context("ip cannot be waited for")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("ip failed: {}", words.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernels_fifteen_characters() {
        assert!(host_interface("0123abcd").len() <= 15);
    }

    #[test]
    fn every_address_has_a_mac_of_its_own() {
        assert_eq!(mac(Ipv4Addr::new(10, 86, 200, 254)), "02:70:0a:56:c8:fe");
    }
}
