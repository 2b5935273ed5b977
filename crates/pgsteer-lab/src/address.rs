//! Picks addresses and ports that are free on this machine.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::options::Network;

/// No program of the lab uses this port. A listener on it reserves a subnet for one lab.
const RESERVATION_PORT: u16 = 15_999;
/// The last address of the subnet: the host's own address on the switch, and the address of the
/// reservation.
const HOST_NUMBER: u8 = 254;

/// The ports of one member. All members use the same ports, each on its own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub postgres: u16,
    pub patroni: u16,
    pub pgbouncer: u16,
    pub etcd: u16,
    pub etcd_peer: u16,
}

impl Ports {
    /// The standard ports. A network namespace has all of them for itself.
    const CUSTOMARY: Self =
        Self { postgres: 5432, patroni: 8008, pgbouncer: 6432, etcd: 2379, etcd_peer: 2380 };

    fn shifted(self, by: u16) -> Self {
        Self {
            postgres: self.postgres + by,
            patroni: self.patroni + by,
            pgbouncer: self.pgbouncer + by,
            etcd: self.etcd + by,
            etcd_peer: self.etcd_peer + by,
        }
    }

    fn all(self) -> [u16; 5] {
        [self.postgres, self.patroni, self.pgbouncer, self.etcd, self.etcd_peer]
    }
}

/// A /24 that belongs to one lab while this value lives.
#[derive(Debug)]
pub struct Subnet {
    prefix: [u8; 3],
    pub ports: Ports,
    /// Two labs that start at once cannot both bind this address, so the choice needs no lock file.
    _reservation: TcpListener,
}

impl Subnet {
    /// Picks a free subnet. `seed` only spreads the labs of a machine; any value is valid.
    pub fn pick(network: Network, members: usize, seed: u8) -> Result<Self> {
        match network {
            Network::Loopback => pick_loopback(members, seed),
            Network::Namespaces => pick_private(seed),
        }
    }

    pub fn member(&self, number: usize) -> Ipv4Addr {
        // A lab has at most seven members, so the number always fits.
        self.address(u8::try_from(number).unwrap_or(u8::MAX))
    }

    pub fn host(&self) -> Ipv4Addr {
        self.address(HOST_NUMBER)
    }

    /// The subnet as a /24 in the notation of pg_hba.conf.
    pub fn cidr(&self) -> String {
        format!("{}/24", self.address(0))
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last)
    }
}

/// The numbers 1 to 250, each once, starting at a number that depends on the seed.
fn candidates(seed: u8) -> impl Iterator<Item = u8> {
    (0..250_u16).filter_map(move |step| u8::try_from((u16::from(seed) + step) % 250 + 1).ok())
}

fn reserve(third: u8) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::new(127, 0, third, HOST_NUMBER), RESERVATION_PORT)).ok()
}

fn pick_loopback(members: usize, seed: u8) -> Result<Subnet> {
    for third in candidates(seed) {
        let Some(reservation) = reserve(third) else {
            continue;
        };
        // A program that listens on all addresses takes its port from every subnet, so other ports
        // are tried.
        for shift in (10_000..20_000).step_by(1_000) {
            let subnet = Subnet {
                prefix: [127, 0, third],
                ports: Ports::CUSTOMARY.shifted(shift),
                _reservation: reservation
                    .try_clone()
                    .context("cannot keep the reservation of a subnet")?,
            };
            if (1..=members).all(|number| all_free(&subnet, number)) {
                return Ok(subnet);
            }
        }
    }
    bail!("no free loopback subnet: 127.0.1.0/24 to 127.0.250.0/24 are all in use")
}

fn all_free(subnet: &Subnet, number: usize) -> bool {
    let ip = subnet.member(number);
    let ports = subnet.ports.all();
    ports.iter().all(|port| TcpListener::bind((ip, *port)).is_ok())
}

fn pick_private(seed: u8) -> Result<Subnet> {
    let output = Command::new("ip")
        .args(["-4", "route", "show", "table", "all"])
        .output()
        .context("cannot run ip route")?;
    let routes = String::from_utf8_lossy(&output.stdout).into_owned();
    for third in candidates(seed) {
        let prefix = [10, 86, third];
        if overlaps(&routes, prefix) {
            continue;
        }
        if let Some(reservation) = reserve(third) {
            return Ok(Subnet { prefix, ports: Ports::CUSTOMARY, _reservation: reservation });
        }
    }
    bail!("no free private subnet: this machine has routes to all of 10.86.0.0/16")
}

/// Returns whether a route in the output of `ip route`, other than the default route, overlaps the
/// /24.
fn overlaps(routes: &str, [a, b, c]: [u8; 3]) -> bool {
    let ours = u32::from(Ipv4Addr::new(a, b, c, 0));
    routes.lines().any(|line| {
        line.split_whitespace()
            .filter_map(|word| {
                let (address, bits) = word.split_once('/').unwrap_or((word, "32"));
                Some((address.parse::<Ipv4Addr>().ok()?, bits.parse::<u32>().ok()?))
            })
            .any(|(address, bits)| {
                let shift = 32 - bits.clamp(1, 24);
                u32::from(address) >> shift == ours >> shift
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "default via 192.168.1.1 dev eth0\n\
        10.86.4.0/22 dev vpn0 scope link\n\
        local 10.86.9.7 dev lo table local\n\
        172.17.0.0/16 dev docker0\n";

    #[test]
    fn a_subnet_inside_a_wider_route_is_taken() {
        assert!(overlaps(ROUTES, [10, 86, 6]));
        assert!(!overlaps(ROUTES, [10, 86, 8]));
    }

    #[test]
    fn a_subnet_around_a_single_address_is_taken() {
        assert!(overlaps(ROUTES, [10, 86, 9]));
    }

    #[test]
    fn the_default_route_takes_nothing() {
        assert!(!overlaps("default via 10.0.0.1 dev eth0\n", [10, 86, 1]));
    }

    #[test]
    fn every_candidate_comes_once() {
        let mut all: Vec<u8> = candidates(200).collect();
        assert_eq!(all[0], 201);
        all.sort_unstable();
        assert_eq!(all, (1..=250).collect::<Vec<u8>>());
    }

    #[test]
    fn two_labs_at_once_get_different_subnets() -> Result<()> {
        let one = Subnet::pick(Network::Loopback, 3, 240)?;
        let two = Subnet::pick(Network::Loopback, 3, 240)?;
        assert_ne!(one.prefix, two.prefix);
        Ok(())
    }
}
