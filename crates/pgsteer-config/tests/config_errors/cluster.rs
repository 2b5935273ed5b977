//! Where the members come from: lists, Patroni, etcd, the check login, the identity.

use insta::assert_snapshot;

use crate::{read, read_beside_patroni, wrong, wrong_beside_members, wrong_beside_patroni};

#[test]
fn members_need_a_login_and_exclude_patroni() {
    let text = "
[members.a]
postgres = 'pg1'
[members.b]
postgres = 'pg2'
";
    assert_snapshot!(wrong(text), @r#"
    pgsteer.toml:2:2: members: listed members are checked by SQL, and no check login is configured
        help: add [check] with user = "pgcheck", or --check-user pgcheck
    "#);
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:4:2: members: members are listed, and Patroni is configured too (pgsteer.toml:1:2: patroni)
        help: remove the list, because Patroni returns the members; list members only for a cluster without Patroni
    ");
}

#[test]
fn members_differ_in_their_addresses() {
    assert_snapshot!(wrong_beside_members("members.b.postgres = 'pg1:5432'"), @"
    pgsteer.toml:3:22: members.b.postgres: pg1:5432 is already given: pgsteer.toml:2:22: members.a.postgres
        help: remove one of them
    ");
}

#[test]
fn a_lone_member_has_no_replica() {
    assert_snapshot!(wrong_beside_members(""), @r#"
    services.read (by default): a is the only member, so there is no replica to read from
        help: list the other members, set fallback = "primary", or keep only [services.write]
    "#);
    assert!(read("check.user = 'x'\nmembers.a.postgres = 'pg1'\n[services.write]").is_ok());
}

#[test]
fn without_patroni_there_are_neither_tags_nor_standby_leaders() {
    let text = "
members.b.postgres = 'pg2'
services.dr = { listen = 5002, role = 'standby_leader' }
services.read.tags = { region = 'west' }
";
    assert_snapshot!(wrong_beside_members(text), @r#"
    pgsteer.toml:5:39: services.dr.role: role standby_leader needs Patroni: SQL cannot distinguish it from a replica
        help: use role = "replica"
    pgsteer.toml:6:15: services.read.tags: listed members have no tags, so the service would have no member
        help: remove tags
    "#);
}

#[test]
fn a_ca_file_without_verification_is_refused() {
    let text = "verify = 'none'\nca_file = 'ca.pem'\n[check]\nuser = 'x'\nrequire_auth = 'gss'";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:4:11: patroni.ca_file: it has no effect with verify = "none"
        help: set verify = "full" or "ca", or remove ca_file
    pgsteer.toml:7:16: check.require_auth: `gss` allows no authentication method that pgsteer supports
        help: pgsteer supports password, md5, scram-sha-256 and none
    "#);
    let text = "verify = 'verify-ca'\n[check]\nuser = 'x'\nrequire_auth = 'md5,!none'";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:3:10: patroni.verify: `verify-ca` is not one of the possible words
        help: did you mean `ca`?
    pgsteer.toml:6:16: check.require_auth: `md5,!none` mixes accepted and excluded methods
        help: list either the accepted methods, or the excluded methods, each with `!` in front
    ");
}

#[test]
fn etcd_settings_must_be_complete() {
    let text = "
[etcd]
urls = ['http://pg1', 'pg2', 'http://a:geheim@pg3', 'http://pg4/v3']
namespace = ''
scope = ''
user = 'pgsteer'
password = 'geheim'
timeout_seconds = 0
";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:5:23: etcd.urls: `pg2` does not start with http:// or https://
        help: did you mean http://pg2:2379?
    pgsteer.toml:5:30: etcd.urls: the URL has a user name or password in it (it is not shown)
        help: leave it out and set username and password_file
    pgsteer.toml:5:53: etcd.urls: the URL has more than scheme, host and port (it is not shown)
        help: write http://pg4:2379; pgsteer adds etcd's paths itself
    pgsteer.toml:6:13: etcd.namespace: a name must not be empty
    pgsteer.toml:7:9: etcd.scope: a name must not be empty
    pgsteer.toml:8:1: etcd.user: there is no key `user` in [etcd]
        help: the keys are urls, namespace, scope, group, username, password_file, verify, ca_file, cert_file, key_file, timeout_seconds
    pgsteer.toml:9:1: etcd.password: a password does not belong in this file (its value is not shown)
        help: put it into a file of its own and name that in [check] or [etcd]: password_file = "/etc/pgsteer/password"
    pgsteer.toml:10:19: etcd.timeout_seconds: `0` is out of range
        help: from 0.1 to 60 seconds; the default is 2
    "#);
    assert_snapshot!(wrong_beside_patroni("[etcd]\nscope = 'a'\nusername = 'b'"), @r#"
    pgsteer.toml:3:2: etcd: `urls` is missing
        help: as in urls = ["http://10.0.0.11:2379"]
    pgsteer.toml:5:12: etcd.username: it needs password_file
        help: give both username and password_file, or none
    "#);
    let text = "
[etcd]
urls = ['http://pg1:2379', 'http://pg1']
password_file = 'pw'
cert_file = 'client.pem'
";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:5:28: etcd.urls: http://pg1:2379 is already given: pgsteer.toml:5:9: etcd.urls
        help: remove one of them
    pgsteer.toml:6:17: etcd.password_file: it needs username
        help: give both username and password_file, or none
    pgsteer.toml:7:13: etcd.cert_file: it needs key_file
        help: give both cert_file and key_file, or none
    ");
    assert_snapshot!(wrong_beside_patroni("[etcd]\nurls = []"), @r#"
    pgsteer.toml:4:1: etcd.urls: it is empty
        help: as in urls = ["http://10.0.0.11:2379"]
    "#);
    assert_snapshot!(wrong_beside_members("[etcd]\nurls = ['http://pg1']"), @r#"
    pgsteer.toml:3:2: etcd: etcd needs Patroni, which writes the watched keys
        help: remove it
    services.read (by default): a is the only member, so there is no replica to read from
        help: list the other members, set fallback = "primary", or keep only [services.write]
    "#);
}

#[test]
fn the_identity_and_its_directory_are_checked() {
    let text =
        "scope = \"a\\nb\"\ngroup = -1\nsystem_identifier = 'pg1'\n[cluster]\nstate_directory = ''";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:3:9: patroni.scope: a name must not contain control characters or invisible characters
    pgsteer.toml:4:9: patroni.group: `-1` is out of range
        help: from 0 to 2147483647
    pgsteer.toml:5:21: patroni.system_identifier: `pg1` is not a system identifier
        help: a number as pg_controldata shows it, in quotes: system_identifier = "7710713066760545906"
    pgsteer.toml:7:19: cluster.state_directory: not a path of a file: it is empty, too long or has a NUL
        help: 1 to 4096 bytes
    "#);
    let text = "scope = 1\ngroup = '0'\nsystem_identifier = 7710713066760545906\n[cluster]\nstate_directory = false";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:3:9: patroni.scope: expects a string, found a whole number
        help: as in scope = "batman"
    pgsteer.toml:4:9: patroni.group: expects a whole number, found a string
        help: a bare number from 0 to 2147483647
    pgsteer.toml:5:21: patroni.system_identifier: expects a string, found a whole number
        help: as in system_identifier = "7710713066760545906"
    pgsteer.toml:7:19: cluster.state_directory: expects a string, found a boolean
        help: as in state_directory = "/var/lib/pgsteer"
    "#);
    let text =
        "system_identifier = '99999999999999999999'\nsystem_id = '1'\n[cluster]\nstate_dir = '/x'";
    assert_snapshot!(wrong_beside_patroni(text), @r#"
    pgsteer.toml:3:21: patroni.system_identifier: `99999999999999999999` is not a system identifier
        help: a number as pg_controldata shows it, in quotes: system_identifier = "7710713066760545906"
    pgsteer.toml:4:1: patroni.system_id: there is no key `system_id` in [patroni]
        help: the keys are urls, verify, ca_file, cert_file, key_file, timeout_seconds, scope, group, system_identifier
    pgsteer.toml:6:1: cluster.state_dir: there is no key `state_dir` in [cluster]
        help: the keys are name, patroni_loss_grace_seconds, silence_seconds, local, state_directory, split_brain
    "#);
}

#[test]
fn the_scope_of_etcd_and_that_of_patroni_are_one() {
    let both = |patroni: &str, etcd: &str| {
        read_beside_patroni(&format!("{patroni}\n[etcd]\nurls = ['http://pg1']\n{etcd}"))
    };
    let meant = |patroni, etcd| {
        let cluster = both(patroni, etcd).unwrap().cluster;
        (cluster.pins().to_string(), cluster.etcd.unwrap().scope)
    };
    let own = |text: &str| Some(text.to_owned());
    assert_eq!(meant("", ""), ("unknown".to_owned(), None));
    assert_eq!(meant("scope = 'a'", ""), ("scope a".to_owned(), own("a")));
    assert_eq!(meant("", "scope = 'a'"), ("scope a".to_owned(), own("a")));
    let grouped = ("scope a, group 0".to_owned(), own("a/0"));
    assert_eq!(meant("scope = 'a'\ngroup = 0", "scope = 'a'"), grouped);
    assert_eq!(meant("", "scope = 'a/0'"), grouped);
    assert_eq!(meant("group = 0", "scope = 'a'"), grouped);
    assert_eq!(meant("scope = 'a'", "group = 0"), grouped);
    assert_eq!(meant("", "scope = 'a'\ngroup = 0"), grouped);
    assert_eq!(meant("", "scope = 'a/0'\ngroup = 0"), grouped);
    assert_eq!(meant("", "group = 0"), ("group 0".to_owned(), None));
    let wrong = |patroni, etcd| both(patroni, etcd).unwrap_err().to_string();
    assert_snapshot!(wrong("scope = 'a'", "scope = 'b'"), @"
    pgsteer.toml:6:9: etcd.scope: it contradicts [patroni]: scope b, expected a
        help: remove it: scope and group of [patroni] are used for etcd too
    ");
    assert_snapshot!(wrong("scope = 'a'\ngroup = 1", "scope = 'a/0'"), @"
    pgsteer.toml:7:9: etcd.scope: it contradicts [patroni]: group 0, expected 1
        help: remove it: scope and group of [patroni] are used for etcd too
    ");
    assert_snapshot!(wrong("scope = 'a'\ngroup = 1", "group = 0"), @"
    pgsteer.toml:7:9: etcd.group: it contradicts [patroni]: group 0, expected 1
        help: remove it: scope and group of [patroni] are used for etcd too
    ");
    assert_snapshot!(wrong("", "scope = 'a/0'\ngroup = 1"), @"
    pgsteer.toml:7:9: etcd.group: it contradicts `scope` of [etcd]: group 1, expected 0
        help: remove it, or the group in that scope
    ");
}

#[test]
fn etcd_has_patronis_own_defaults() {
    let text = "[patroni]\nurls = ['http://pg1']\n[etcd]\nurls = ['https://pg1', 'http://pg2:1']";
    let etcd = read(text).unwrap().cluster.etcd.unwrap();
    assert_eq!(etcd.urls, ["https://pg1:2379", "http://pg2:1"]);
    assert_eq!((&*etcd.namespace, etcd.scope), ("/service", None));
}

#[test]
fn the_split_brain_policy_is_refused_with_patroni() {
    assert_snapshot!(wrong_beside_patroni("[cluster]\nsplit_brain = 'highest_timeline'"), @"
    pgsteer.toml:4:15: cluster.split_brain: with Patroni the leader lock decides, not the timeline
        help: remove it
    ");
}

#[test]
fn the_local_member_is_one_of_those_that_are_listed() {
    let members = "members.b.postgres = 'pg2'\ncluster.local = 'c'\n";
    assert_snapshot!(wrong_beside_members(members), @"
    pgsteer.toml:4:17: cluster.local: no member is called c
        help: one of a, b
    ");
    // Patroni lists the members only at run time.
    assert!(read("cluster.local = 'c'\npatroni.urls = ['http://pg1']\n").is_ok());
}

#[test]
fn silence_is_longer_than_an_answer_may_take() {
    let text = "timeout_seconds = 60\n[cluster]\nsilence_seconds = 5";
    assert_snapshot!(wrong_beside_patroni(text), @"
    pgsteer.toml:5:19: cluster.silence_seconds: shorter than the timeout of Patroni's answer, 60 seconds
        help: raise silence_seconds, or lower that timeout_seconds
    ");
}

#[test]
fn a_repeated_patroni_url_is_refused() {
    assert_snapshot!(wrong("patroni.urls = ['http://pg1', 'http://pg1:8008/']"), @"
    pgsteer.toml:1:31: patroni.urls: http://pg1:8008 is already given: pgsteer.toml:1:17: patroni.urls
        help: remove one of them
    ");
}
