//! The other outputs: the pages, the agent, HAProxy, and the address.

use insta::assert_snapshot;
use pgsteer_config::summary::Summary;
use pgsteer_core::settings::Weight;

use crate::{read, read_beside_patroni, wrong, wrong_beside_patroni};

#[test]
fn a_certificate_needs_its_key() {
    let text = "
cert_file = 'client.pem'
[check]
user = 'pgcheck'
ca_file = 'ca.pem'
";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:4:13: patroni.cert_file: it needs key_file
        help: give both cert_file and key_file, or none
    pgsteer.toml:7:11: check.ca_file: it has no effect with sslmode prefer
        help: set sslmode = "verify-full", or remove ca_file
    "#);
    assert_snapshot!(wrong_beside_patroni("key_file = 'client.key'"), @"
    pgsteer.toml:3:12: patroni.key_file: it needs cert_file
        help: give both cert_file and key_file, or none
    ");
}

#[test]
fn a_health_check_with_a_mistake_differs_from_an_unknown_word() {
    let default = |text: &str| wrong_beside_patroni(&format!("[agent]\ndefault = '{text}'\n"));
    assert_snapshot!(default("replica?lag=x"), @"pgsteer.toml:4:11: agent.default: `x` is not a valid lag: a size, as in lag=16MB");
    assert_snapshot!(default("replcia"), @"
    pgsteer.toml:4:11: agent.default: `replcia` is neither a service nor one of Patroni's health checks
        help: write the name of a service, or a check such as primary, replica?lag=16MB, read-only or sync; then the member, if it is not the local one
    ");
    // A text that may be a secret is not shown.
    assert_snapshot!(default("replica?lag=a@b"), @"
    pgsteer.toml:4:11: agent.default: what is written (not shown, it may hold a secret) is neither a service nor one of Patroni's health checks
        help: write the name of a service, or a check such as primary, replica?lag=16MB, read-only or sync; then the member, if it is not the local one
    ");
}

#[test]
fn a_weight_by_sessions_needs_a_login() {
    let agent = "[agent]\nweight = 'sessions'\n";
    assert_snapshot!(wrong_beside_patroni(agent), @r#"
    pgsteer.toml:4:10: agent.weight: a weight by sessions needs a check login, which counts the sessions of a member
        help: add [check] with user = "pgcheck", or --check-user pgcheck
    "#);
    let with_login = format!("[patroni]\nurls = ['http://pg1']\n{agent}[check]\nuser = 'a'\n");
    assert_eq!(read(&with_login).unwrap().agent.map(|agent| agent.weight), Some(Weight::Sessions));
}

#[test]
fn each_mistake_in_haproxy_is_named() {
    for (text, expected) in [
        ("[haproxy]", "`sockets` is missing"),
        ("[haproxy]\nsockets = []", "it is empty"),
        ("[haproxy]\nsockets = ['x']", "neither the path of a socket nor HOST:PORT"),
        ("[haproxy]\nsockets = ['/a', '/a']", "/a is already given"),
        ("[haproxy]\nsockets = ['/a']\nbackends = { wrte = 'b' }", "there is no service `wrte`"),
        (
            "[haproxy]\nsockets = ['/a']\nadd_servers = 'check; shutdown sessions'",
            "cannot follow the address of a server",
        ),
        (
            "[haproxy]\nsockets = ['/a']\nbackends = { write = 'b c' }",
            "not a valid name of a HAProxy backend",
        ),
        (
            "[haproxy]\nsockets = ['/a']\nbackends = { write = 'b', read = 'b' }",
            "backend `b` is that of service",
        ),
        ("[haproxy]\nsockets = ['/a', 'h:1']\nstate_file = '/f'", "several HAProxys"),
        ("[haproxy]\nsockets = ['/a']\ntimeout_seconds = 0", "out of range"),
    ] {
        let errors = wrong_beside_patroni(text);
        assert!(errors.contains(expected), "{text}\n{errors}");
    }
    let sockets: String = (0..17).map(|n| format!("'/{n}', ")).collect();
    let errors = wrong_beside_patroni(&format!("[haproxy]\nsockets = [{sockets}]"));
    assert!(errors.contains("at most 16"), "{errors}");
    let good = "[haproxy]\nsockets = ['unix@/a', '[::1]:9999']\nbackends = { write = 'pg:w' }";
    let haproxy = read_beside_patroni(good).unwrap().haproxy.unwrap();
    let sockets: Vec<String> = haproxy.sockets.iter().map(ToString::to_string).collect();
    assert_eq!(sockets, ["/a", "[::1]:9999"]);
}

#[test]
fn an_address_that_cannot_follow_a_service_is_refused_with_what_is_right() {
    let text = "
[patroni]
urls = ['http://10.0.0.11:8008']
[vip.a]
address = '10.0.0.50'
interface = 'eth0'
[vip.b]
address = '10.0.0.255/24'
interface = 'eth0:1'
[vip.c]
service = 'wirte'
[vip.d]
address = '10.0.0.11/24'
interface = 'eth0'
[vip.e]
address = 'fe80::5/64'
interface = 'an_interface_of_16'
[vip.f]
address = 'db.example/24'
interface = 'eth0'
service = 'writes'
";
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:5:11: vip.a.address: 10.0.0.50 has no prefix length
        help: add that of the interface's network, as in 10.0.0.50/24
    pgsteer.toml:8:11: vip.b.address: `10.0.0.255/24`: it is the broadcast address of its network
        help: choose an address of the interface's network that no machine has, with the prefix length of that network, as 10.0.0.50/24
    pgsteer.toml:9:13: vip.b.interface: `eth0:1` is not the name of an interface
        help: 1 to 15 bytes without blanks, slashes and colons, as eth0; `ip link` lists them
    pgsteer.toml:10:6: vip.c: `address` is missing
        help: as in address = "10.0.0.50/24"
    pgsteer.toml:10:6: vip.c: `interface` is missing
        help: as in interface = "eth0"
    pgsteer.toml:11:11: vip.c.service: there is no service wirte for the address to follow
        help: set service to one of read, write
    pgsteer.toml:13:11: vip.d.address: 10.0.0.11 is the own address of http://10.0.0.11:8008, so it cannot move to another machine
        help: choose an address of the same network that no machine has
    pgsteer.toml:16:11: vip.e.address: `fe80::5/64`: it is a link-local address, which clients reach only with the name of their interface
        help: choose an address of the interface's network that no machine has, with the prefix length of that network, as 10.0.0.50/24
    pgsteer.toml:17:13: vip.e.interface: `an_interface_of_16` is not the name of an interface
        help: 1 to 15 bytes without blanks, slashes and colons, as eth0; `ip link` lists them
    pgsteer.toml:19:11: vip.f.address: `db.example/24` is not ADDRESS/PREFIX
        help: as 10.0.0.50/24 or fd00::50/64
    pgsteer.toml:21:11: vip.f.service: there is no service writes for the address to follow
        help: set service to one of read, write
    "#);
    let twice = "[patroni]\nurls = ['http://pg1']\n[vip.a]\naddress = '10.0.0.50/24'\ninterface = 'eth0'\n\
                 [vip.b]\naddress = '10.0.0.50/24'\ninterface = 'eth1'\n\
                 [vip.c]\naddress = '10.0.0.52/24'\ninterface = 'eth1'\nservice = 'read'\n";
    assert_snapshot!(wrong(twice), @"
    pgsteer.toml:7:11: vip.b.address: 10.0.0.50 is already given: pgsteer.toml:4:11: vip.a.address
        help: remove one of them
    ");
}

#[test]
fn an_address_follows_the_service_write_unless_another_one_is_named() {
    let text = "[vip.db]\naddress = 'fd00::50/64'\ninterface = 'eth0'\n\
                [vip.readers]\naddress = '10.0.0.51/24'\ninterface = 'bond0.12'\nservice = 'write'\n";
    let config = read_beside_patroni(text).unwrap();
    let followed: Vec<_> = config.vips.values().map(|vip| vip.service.as_str()).collect();
    assert_eq!(followed, ["write", "write"]);
    let shown = Summary(&config).to_string();
    assert!(shown.contains("address db: fd00::50/64 on eth0 follows write\n"), "{shown}");
}

#[test]
fn other_pgsteers_are_urls_without_a_login_and_not_too_many() {
    let many: Vec<String> = (0..17).map(|number| format!("'http://door{number}'")).collect();
    let text = format!("[patroni]\nurls = ['http://pg1']\n[http]\npeers = [{}]\n", many.join(", "));
    assert_snapshot!(wrong(&text), @"
    pgsteer.toml:4:1: http.peers: 17 entries are too many
        help: at most 16
    ");
    let text = "[patroni]\nurls = ['http://pg1']\n[http]\npeers = ['door2', 'http://a:b@door3', 'http://door4/x']\n";
    assert_snapshot!(wrong(text), @"
    pgsteer.toml:4:10: http.peers: `door2` does not start with http:// or https://
        help: did you mean http://door2:7000?
    pgsteer.toml:4:19: http.peers: the URL has a user name or password in it (it is not shown)
        help: leave it out: other pgsteers are asked with the token of peers_token_file
    pgsteer.toml:4:39: http.peers: the URL has more than scheme, host and port (it is not shown)
        help: write http://door4:7000; pgsteer adds pgsteer's paths itself
    ");
}
