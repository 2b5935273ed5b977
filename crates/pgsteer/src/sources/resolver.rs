//! The resolver of one member: looks up the addresses of its host name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::claim::{Fact, Failure};
use pgsteer_core::names::Endpoint;
use pgsteer_core::plan::Ask;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Gone, Hint, Reporter, dial};
use crate::lookup::PATIENCE;

/// The time between two lookups while they succeed.
const REST: Duration = Duration::from_secs(30);

/// The time to the next lookup after a failure, and the minimum after a hint.
const HURRY: Duration = Duration::from_secs(2);

/// Reports the addresses of the host in `ask`: those of a name repeatedly, a literal address once.
/// `unreachable` is notified if no server answers at the known addresses.
pub async fn run(mut ask: watch::Receiver<Ask>, reporter: Reporter, unreachable: Hint) -> Gone {
    let mut new_hosts = ask.clone();
    loop {
        let postgres = ask.borrow_and_update().postgres.clone();
        let moved = moved(&mut ask, &postgres);
        let done = tokio::select! {
            done = moved => done,
            done = follow(&postgres, &reporter, &unreachable) => done,
            done = look_up_new_hosts(&mut new_hosts, &reporter) => done,
        };
        if let Err(gone) = done {
            return gone;
        }
    }
}

/// Waits until the plan names another endpoint.
async fn moved(ask: &mut watch::Receiver<Ask>, postgres: &Endpoint) -> Result<(), Gone> {
    let moved = ask.wait_for(|ask| ask.postgres != *postgres).await;
    moved.map(|_| ()).map_err(|_| Gone)
}

/// Reports the addresses of each other host under which the list names the member. The core waits for
/// them for a limited time.
async fn look_up_new_hosts(
    ask: &mut watch::Receiver<Ask>,
    reporter: &Reporter,
) -> Result<(), Gone> {
    loop {
        let has_new = |ask: &Ask| ask.new_host.is_some();
        let new = ask.wait_for(has_new).await.map_err(|_| Gone)?.new_host.clone();
        let Some(postgres) = new else { continue };
        let asked = Instant::now();
        let addresses = dial::look_up(&postgres).await;
        let fact = Fact::NewHost { postgres: postgres.clone(), addresses };
        reporter.claim(asked, fact).await?;
        let is_other = |ask: &Ask| ask.new_host.as_ref() != Some(&postgres);
        ask.wait_for(is_other).await.map_err(|_| Gone)?;
    }
}

async fn follow(postgres: &Endpoint, reporter: &Reporter, unreachable: &Hint) -> Result<(), Gone> {
    let mut was_resolved = true;
    let mut addresses_are_known = false;
    loop {
        let asked = Instant::now();
        let answer = answer(postgres, asked, reporter, &mut addresses_are_known).await?;
        let is_resolved = answer.is_ok();
        match &answer {
            Err(failure) if was_resolved => warn!(member = %reporter.member, "{failure}"),
            Ok(_) if !was_resolved => {
                info!(member = %reporter.member, "{} resolves again", postgres.host());
            }
            _ => {}
        }
        was_resolved = is_resolved;
        let is_here = answer.as_ref().is_ok_and(|addresses| addresses.iter().any(is_ours));
        reporter.claim(asked, Fact::Addresses(answer)).await?;
        reporter.claim(asked, Fact::Here(is_here)).await?;
        if postgres.ip().is_some() {
            // A literal address never changes.
            return std::future::pending().await;
        }
        tokio::time::sleep(HURRY).await;
        if is_resolved {
            // A hint that arrived in the meantime counts too.
            let _ = timeout(REST - HURRY, unreachable.given()).await;
        }
    }
}

/// Returns the result of a lookup, even of a late one. If no address is known and the lookup is late,
/// a failure is reported first, so that an operator sees the reason.
async fn answer(
    postgres: &Endpoint,
    asked: Instant,
    reporter: &Reporter,
    addresses_are_known: &mut bool,
) -> Result<Result<Vec<IpAddr>, Failure>, Gone> {
    let mut looking = pin!(dial::look_up(postgres));
    let answer = match timeout(PATIENCE, &mut looking).await {
        Ok(answer) => answer,
        Err(_) => {
            if !*addresses_are_known {
                let why = format!("{}: no answer within {PATIENCE:?} yet", postgres.host());
                let late = Failure::Unresolved(Arc::from(why));
                warn!(member = %reporter.member, "{late}");
                reporter.claim(asked, Fact::Addresses(Err(late))).await?;
            }
            looking.await
        }
    };
    *addresses_are_known |= answer.is_ok();
    Ok(answer)
}

/// Returns true if the address belongs to this machine, so that a connection to it stays here.
/// Loopback is excluded, because every machine has it.
///
/// Nothing is sent: connecting a UDP socket only looks up the route. Binding to the address would
/// prove nothing where keepalived needs `net.ipv4.ip_nonlocal_bind`.
fn is_ours(address: &IpAddr) -> bool {
    const ANY_PORT: u16 = 9;
    let from: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let way = || {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        socket.connect(SocketAddr::new(*address, ANY_PORT))?;
        socket.local_addr()
    };
    !address.is_loopback() && way().is_ok_and(|begins| begins.ip() == *address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_loopback_address_nor_that_of_another_machine_is_local() {
        for address in ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"] {
            assert!(!is_ours(&address.parse().unwrap()), "{address}");
        }
    }
}
