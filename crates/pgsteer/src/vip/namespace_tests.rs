//! The keeper and the announcer against a kernel: each test runs in a network namespace of its own.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::process::Command;
use std::time::{Duration, Instant};

use pgsteer_core::names::{MemberName, ServiceName, VipName};
use pgsteer_core::settings::VipConfig;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;
use socket2::{Domain, Protocol, Socket, Type};

use super::announcer::Announcer;
use super::interface::{self, Mac};
use super::keeper::{Keeper, Look};
use super::{kernel, ndp, release};
use crate::http::sample;

/// Set in the process that runs a test in a namespace.
const INSIDE: &str = "PGSTEER_TEST_IN_NAMESPACE";

/// Runs `test` in a network namespace with the interfaces `eth0` and `eth1`, which are the ends of one cable.
/// `name` is the name of the test function: this program runs it again in the namespace.
fn in_namespace(name: &str, test: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        ip("link add name eth0 type veth peer name eth1");
        ip("link set eth0 up");
        ip("link set eth1 up");
        // eth1 would answer for the addresses of eth0, like another machine.
        std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap();
        return test();
    }
    let program = std::env::current_exe().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let flags: &[&str] = if is_root { &["--net"] } else { &["--net", "--map-root-user"] };
    let full_name = format!("vip::namespace_tests::{name}");
    let mut command = Command::new("unshare");
    command.args(flags).arg(program).args(["--exact", &full_name, "--nocapture"]);
    let output = command.env(INSIDE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The IPv4 addresses of `eth0`.
fn addresses() -> Vec<String> {
    let text = ip("-4 -o address show dev eth0");
    text.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect()
}

fn vip(address: &str) -> VipConfig {
    let (address, prefix) = address.split_once('/').unwrap();
    VipConfig {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        interface: "eth0".to_owned(),
        service: ServiceName::new("write").unwrap(),
    }
}

fn keeper(vip: &VipConfig) -> Keeper {
    Keeper::new(VipName::new("db").unwrap(), vip.clone(), Moment::START)
}

/// The service `write` is open at the local member.
fn held() -> Snapshot {
    let mut snapshot = sample::calm();
    let write = &snapshot.services[&ServiceName::new("write").unwrap()];
    snapshot.local = Some(write.open().next().unwrap().clone());
    for member in snapshot.members.values_mut() {
        member.promoting = false;
    }
    snapshot
}

/// Another member is open.
fn released() -> Snapshot {
    let mut snapshot = held();
    let local = snapshot.local.clone();
    snapshot.local = snapshot.members.keys().find(|name| Some(*name) != local.as_ref()).cloned();
    snapshot
}

/// No Patroni has answered: no member is known.
fn unknown() -> Snapshot {
    Snapshot { local: None, ..held() }
}

/// `address` is the own address of the local member.
fn refused(address: IpAddr) -> Snapshot {
    let mut snapshot = held();
    let local: MemberName = snapshot.local.clone().unwrap();
    snapshot.members.get_mut(&local).unwrap().addresses = vec![address];
    snapshot
}

fn look(keeper: &mut Keeper, snapshot: &Snapshot, ms: u64) {
    let addresses = kernel::addresses();
    let now = Moment::from_millis(ms);
    keeper.look(&Look { snapshot, is_current: true, addresses: &addresses, now });
}

fn trouble(keeper: &Keeper) -> String {
    keeper.shown().trouble.clone().unwrap_or_default()
}

#[test]
fn the_own_address_of_the_machine_is_never_removed() {
    in_namespace("the_own_address_of_the_machine_is_never_removed", || {
        ip("address add 10.0.0.99/24 dev eth0");
        let vip = vip("10.0.0.99/24");
        // A member has the address as its own: pgsteer refuses it, also after a release.
        let mut refusing = keeper(&vip);
        look(&mut refusing, &refused(vip.address), 0);
        assert!(trouble(&refusing).contains("choose another one"), "{}", trouble(&refusing));
        refusing.release("pgsteer stops");
        assert_eq!(addresses(), ["10.0.0.99/24"]);
        // Patroni cannot be reached, then another member is open.
        let mut waiting = keeper(&vip);
        for ms in [0, 2_500, 5_000, 7_500] {
            look(&mut waiting, &unknown(), ms);
        }
        assert!(trouble(&waiting).contains("pgsteer did not add it"), "{}", trouble(&waiting));
        look(&mut waiting, &released(), 8_000);
        look(&mut waiting, &held(), 8_500);
        waiting.release("pgsteer stops");
        release::run();
        assert_eq!(addresses(), ["10.0.0.99/24"]);
    });
}

#[test]
fn an_address_that_an_earlier_pgsteer_left_behind_is_removed() {
    in_namespace("an_address_that_an_earlier_pgsteer_left_behind_is_removed", || {
        let vips = [vip("10.0.0.50/24"), vip("fd00::50/64")];
        let count = || {
            let all = kernel::addresses().unwrap();
            vips.iter().filter(|vip| all.iter().any(|it| it.address == vip.address)).count()
        };
        // The first keepers end without a release, like the process at a SIGKILL.
        let leave = || vips.iter().for_each(|vip| look(&mut keeper(vip), &held(), 0));
        leave();
        assert_eq!(count(), 2);
        for vip in &vips {
            let mut next = keeper(vip);
            look(&mut next, &released(), 0);
            assert_eq!(next.shown().removed_total, 1, "{}", trouble(&next));
        }
        assert_eq!(count(), 0);
        leave();
        release::run();
        assert_eq!(count(), 0);
    });
}

#[test]
fn an_address_after_a_refusal_stays_although_pgsteer_added_it() {
    in_namespace("an_address_after_a_refusal_stays_although_pgsteer_added_it", || {
        let vip = vip("10.0.0.50/24");
        let mut keeper = keeper(&vip);
        look(&mut keeper, &held(), 0);
        look(&mut keeper, &refused(vip.address), 500);
        keeper.release("pgsteer stops");
        assert_eq!(addresses(), ["10.0.0.50/32"]);
    });
}

#[test]
fn the_addresses_of_other_programs_stay_when_the_address_leaves() {
    in_namespace("the_addresses_of_other_programs_stay_when_the_address_leaves", || {
        std::fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", "0").unwrap();
        // The network restarts: the address is there before the machine's own one.
        let (first, second) = (vip("10.0.0.50/24"), vip("10.0.0.51/24"));
        let (mut one, mut two) = (keeper(&first), keeper(&second));
        look(&mut one, &held(), 0);
        look(&mut two, &held(), 0);
        ip("address add 10.0.0.11/24 dev eth0");
        look(&mut one, &held(), 500);
        ip("route add default via 10.0.0.1");
        for to in ["10.0.0.1", "192.0.2.1"] {
            let route = ip(&format!("route get {to}"));
            assert!(route.contains("src 10.0.0.11"), "{route}");
        }
        one.release("pgsteer stops");
        assert_eq!(addresses(), ["10.0.0.51/32", "10.0.0.11/24"]);
        two.release("pgsteer stops");
        assert_eq!(addresses(), ["10.0.0.11/24"]);
        let routes = ip("-4 route show");
        assert_eq!(routes.lines().count(), 2, "the default and the network: {routes}");
    });
}

#[test]
fn a_machine_without_another_address_reaches_the_network_of_each_of_two_addresses() {
    in_namespace(
        "a_machine_without_another_address_reaches_the_network_of_each_of_two_addresses",
        || {
            let (mut one, mut two) = (keeper(&vip("10.0.0.50/24")), keeper(&vip("10.0.0.51/24")));
            look(&mut one, &held(), 0);
            look(&mut two, &held(), 0);
            assert_eq!((trouble(&one), trouble(&two)), (String::new(), String::new()));
            assert!(ip("route get 10.0.0.1").contains("dev eth0"));
            one.release("pgsteer stops");
            assert_eq!(addresses(), ["10.0.0.51/32"]);
            assert!(ip("route get 10.0.0.1").contains("src 10.0.0.51"));
            // The kernel deletes the route when the interface goes down.
            ip("link set eth0 down");
            ip("link set eth0 up");
            look(&mut two, &held(), 500);
            assert!(ip("route get 10.0.0.1").contains("src 10.0.0.51"));
            two.release("pgsteer stops");
            assert_eq!(ip("-4 route show"), "");
        },
    );
}

#[test]
fn vip_release_removes_every_address_that_pgsteer_added_and_no_other() {
    in_namespace("vip_release_removes_every_address_that_pgsteer_added_and_no_other", || {
        let elsewhere = VipConfig { interface: "eth1".to_owned(), ..vip("10.0.0.50/24") };
        let index = |name: &str| interface::index_of(name).unwrap().unwrap();
        let count = || {
            let all = kernel::addresses().unwrap();
            all.iter().filter(|found| found.address == elsewhere.address).count()
        };
        kernel::add(&vip("10.0.0.50/24"), index("eth0")).unwrap();
        kernel::add(&elsewhere, index("eth1")).unwrap();
        ip("address add 10.0.0.50/24 dev eth0");
        assert_eq!(count(), 3);
        release::run();
        assert_eq!((count(), addresses()), (1, vec!["10.0.0.50/24".to_owned()]));
    });
}

#[test]
fn an_address_that_must_go_is_removed_although_the_list_cannot_be_read() {
    in_namespace("an_address_that_must_go_is_removed_although_the_list_cannot_be_read", || {
        let mut keeper = keeper(&vip("10.0.0.50/24"));
        look(&mut keeper, &held(), 0);
        let unread = Err(std::io::ErrorKind::TimedOut.into());
        let now = Moment::from_millis(500);
        for (snapshot, expected) in
            [(unknown(), vec!["10.0.0.50/32".to_owned()]), (released(), vec![])]
        {
            let (snapshot, addresses_read) = (&snapshot, &unread);
            let look = Look { snapshot, is_current: true, addresses: addresses_read, now };
            keeper.look(&look);
            assert_eq!(addresses(), expected);
        }
    });
}

/// Sends `message` from `eth1` to all machines of the network with this hop limit.
fn send(message: &[u8], hop_limit: u32) {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
    let index = interface::index_of("eth1").unwrap().unwrap();
    socket.bind_device(Some(b"eth1")).unwrap();
    socket.set_multicast_if_v6(index).unwrap();
    socket.set_multicast_hops_v6(hop_limit).unwrap();
    let to = SocketAddrV6::new(ndp::ALL_NODES, 0, 0, index);
    socket.send_to(message, &to.into()).unwrap();
}

fn rival_within(announcer: &Announcer, limit: Duration) -> Option<Mac> {
    let deadline = Instant::now() + limit;
    loop {
        match announcer.rival() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            rival => return rival,
        }
    }
}

#[test]
fn a_routed_advertisement_is_no_rival_and_one_of_the_network_is() {
    in_namespace("a_routed_advertisement_is_no_rival_and_one_of_the_network_is", || {
        const MAC: Mac = [2, 0, 0, 0, 0, 0x66];
        ip("address add fe80::b/64 dev eth1 nodad");
        let address: Ipv6Addr = "fd00::50".parse().unwrap();
        let own = interface::find("eth0").unwrap().unwrap();
        let announcer = Announcer::open(address.into(), "eth0", own).unwrap().unwrap();
        let message = ndp::announcement(MAC, address);
        // A router has decremented the hop limit.
        send(&message, 254);
        assert_eq!(rival_within(&announcer, Duration::from_millis(300)), None);
        send(&message, 255);
        assert_eq!(rival_within(&announcer, Duration::from_secs(5)), Some(MAC));
        // Other messages do not reach the socket, so they do not use up the packets of one look.
        for _ in 0..300 {
            send(&ndp::probe(MAC, address), 255);
        }
        send(&message, 255);
        assert_eq!(announcer.rival(), Some(MAC));
    });
}
