//! Whether a listener is reached at the address that clients and programs are given.

use std::net::{IpAddr, SocketAddr};

use super::refusal::Refusal;

/// How a listener relates to a host that is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// It answers there.
    Answers,
    /// It listens on one address, and that is another one.
    OtherAddress,
    /// It does not answer there.
    Nothing,
}

/// Refuses a listener that does not answer on one of `hosts`.
///
/// A listener on one address that is one of `hosts` is accepted for all of them: then each machine
/// has a file of its own.
///
/// # Errors
/// The first host on which nothing answers.
pub fn check<'a>(
    what: &str,
    listen: SocketAddr,
    who: &'static str,
    hosts: impl IntoIterator<Item = &'a str> + Clone,
) -> Result<(), Refusal> {
    let is_one_of_them = || {
        let mut each = hosts.clone().into_iter();
        each.any(|host| reach(listen.ip(), host) == Reach::Answers)
    };
    for host in hosts.clone() {
        let is_fine = match reach(listen.ip(), host) {
            Reach::Answers => true,
            Reach::OtherAddress => is_one_of_them(),
            Reach::Nothing => false,
        };
        if !is_fine {
            let target = format!("{}:{}", super::host::bracketed(host), listen.port());
            return Err(Refusal::Unreachable { what: what.to_owned(), listen, who, target });
        }
    }
    Ok(())
}

/// Where a program on the same machine reaches a listener.
pub fn locally(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn reach(listen: IpAddr, host: &str) -> Reach {
    let is_reached = match (host.parse::<IpAddr>(), listen) {
        (Ok(host), listen) if host == listen => true,
        // `[::]` includes IPv4, unless the system is configured otherwise.
        (Ok(host), listen) if listen.is_unspecified() => host.is_ipv4() || listen.is_ipv6(),
        (Ok(_), _) => false,
        (Err(_), listen) if host == "localhost" => listen.is_loopback() || listen.is_unspecified(),
        // What a name stands for is known where it is resolved.
        (Err(_), listen) => !listen.is_loopback(),
    };
    let is_local = |host: IpAddr| host.is_loopback();
    if is_reached {
        Reach::Answers
    } else if listen.is_unspecified() || listen.is_loopback() && !host.parse().is_ok_and(is_local) {
        Reach::Nothing
    } else {
        Reach::OtherAddress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_answers_where_its_address_is() {
        let answers = |listen: &str, hosts: &[&str]| {
            check("x", listen.parse().unwrap(), "y", hosts.iter().copied()).is_ok()
        };
        assert!(answers("0.0.0.0:1", &["10.0.0.1", "pg-1.example", "127.0.0.1"]));
        assert!(!answers("0.0.0.0:1", &["10.0.0.1", "fd00::1"]));
        assert!(answers("[::]:1", &["10.0.0.1", "fd00::1"]));
        assert!(!answers("127.0.0.1:1", &["10.0.0.1"]));
        assert!(!answers("127.0.0.1:1", &["127.0.0.1", "10.0.0.1"]));
        assert!(!answers("127.0.0.1:1", &["127.0.0.2"]));
        assert!(answers("127.0.0.1:1", &["127.0.0.2", "127.0.0.1"]));
        assert!(!answers("[::1]:1", &["pg-1.example"]));
        assert!(answers("127.0.0.1:1", &["localhost"]) && answers("127.0.0.1:1", &["127.0.0.1"]));
        assert!(!answers("10.0.0.1:1", &["10.0.0.2"]));
        assert!(answers("10.0.0.1:1", &["10.0.0.1", "10.0.0.2"]), "a file for each machine");
        assert!(answers("10.0.0.1:1", &["pg-1.example"]));
    }

    #[test]
    fn a_program_beside_it_reaches_it() {
        let of = |listen: &str| locally(listen.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:7000"), "127.0.0.1:7000");
        assert_eq!(of("[::]:7000"), "[::1]:7000");
        assert_eq!(of("10.0.0.21:7000"), "10.0.0.21:7000");
    }
}
