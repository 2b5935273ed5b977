//! The connections of this host to a member, as the kernel lists them: unlike a log, this list is
//! never late.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context, Result};

/// The TCP states in which this side has not closed yet: ESTABLISHED and CLOSE_WAIT.
const OPEN: [&str; 2] = ["01", "08"];

/// The local ends of all connections to `server` that this side has not closed.
pub fn open_to(server: SocketAddr) -> Result<BTreeSet<SocketAddr>> {
    let table = std::fs::read_to_string("/proc/net/tcp").context("cannot read /proc/net/tcp")?;
    let open = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
        (address(remote)? == server && OPEN.contains(&state)).then(|| address(local))?
    });
    Ok(open.collect())
}

/// Parses `0100007F:1538`: the address is in the byte order of the machine, the port in network
/// order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(ip), port)))
}
