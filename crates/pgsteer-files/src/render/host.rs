//! Hosts and networks, as written in a file.

use std::net::IpAddr;

/// Returns true for an address, or a name that is valid in DNS and /etc/hosts.
pub fn is_host(text: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && (text.chars().all(is_of_name) || text.parse::<IpAddr>().is_ok())
}

/// Returns a host as it is written before a port.
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Returns true for an address, or a network such as `10.1.0.0/16`.
pub fn is_network(text: &str) -> bool {
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let Ok(ip) = ip.parse::<IpAddr>() else { return false };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
}
