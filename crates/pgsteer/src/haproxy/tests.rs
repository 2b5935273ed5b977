//! The state machine with orders and observations, and the task against sockets that misbehave. Real
//! HAProxys are in the end-to-end tests.

use std::collections::BTreeMap;
use std::time::Duration;

use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::settings::HaproxySocket;
use pgsteer_core::time::Moment;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::answer::{Admin, Process, Server, process};
use super::command::line;
use super::connection::{ExchangeError, exchange};
use super::machine::{Machine, Observed};
use super::order::{Order, Target, Wanted};
use super::steering::{Seen, observe};
use super::view::{Difference, Differences, difference};

const START: Moment = Moment::START;

fn target(member: &str, wanted: Wanted, has_other_role: bool) -> Target {
    let host = member.trim_start_matches('n');
    Target {
        service: ServiceName::new("write").unwrap(),
        member: MemberName::new(member).unwrap(),
        label: member.to_owned(),
        addresses: vec![format!("10.0.0.{host}").parse().unwrap()],
        ports: vec![5432],
        has_left: false,
        order: Order { wanted, has_other_role },
    }
}

fn up(name: &str) -> Server {
    Server { name: name.to_owned(), is_up: true, weight: 1, ..Server::default() }
}

fn out(name: &str) -> Server {
    Server { is_up: false, check: "L7STS".to_owned(), check_fails: true, ..up(name) }
}

fn observed(pid: u32, servers: &[Server]) -> Observed {
    let process = Process { pid, ..Process::default() };
    let backends = BTreeMap::from([("pg".to_owned(), servers.to_vec())]);
    Observed { process, backends, ..Observed::default() }
}

fn machine() -> Machine {
    let write = ServiceName::new("write").unwrap();
    Machine::new(BTreeMap::from([(write, "pg".to_owned())]), None)
}

/// A machine that steers n1 as the primary and n2 as a replica.
fn steering() -> (Machine, [Target; 2]) {
    let mut machine = machine();
    let targets = [target("n1", Wanted::Serve, false), target("n2", Wanted::End, true)];
    let commands =
        machine.handle_observed(observed(7, &[up("n1"), out("n2")]), Some(&targets), START);
    assert_eq!(line(&commands), "", "everything is right already");
    (machine, targets)
}

#[test]
fn in_a_switchover_the_old_primary_is_first_and_all_is_one_line() {
    let (mut machine, _) = steering();
    let targets = [target("n2", Wanted::Serve, false), target("n1", Wanted::End, false)];
    assert_eq!(
        line(&machine.handle_targets(&targets)),
        "set server pg/n1 weight 0%;shutdown sessions server pg/n1;\
         set server pg/n2 health up;set server pg/n2 weight 100%"
    );
    assert_eq!(machine.handle_targets(&targets), [], "an order is sent once");
}

#[test]
fn haproxy_3_0_ends_sessions_when_no_new_ones_are_under_way() {
    let (mut machine, targets) = steering();
    let mut see = |weight, sessions, targets: &[Target]| {
        let n1 = Server { weight, sessions, ..up("n1") };
        let mut observed = observed(7, &[n1, out("n2")]);
        observed.process.version = "3.0.11-1+deb13u4".to_owned();
        let seen = line(&machine.handle_observed(observed, Some(targets), START));
        let ended = [target("n1", Wanted::End, false), target("n2", Wanted::End, true)];
        (seen, line(&machine.handle_targets(&ended)))
    };
    let block = "set server pg/n1 weight 0%";
    assert_eq!(see(1, 5, &targets), (String::new(), block.to_owned()));
    let ended = [target("n1", Wanted::End, false), target("n2", Wanted::End, true)];
    // Also if another program has restored the weight.
    assert_eq!(see(1, 5, &ended).0, format!("{block};shutdown sessions server pg/n1"));
    assert_eq!(see(0, 5, &ended).0, "shutdown sessions server pg/n1");
    assert_eq!(see(0, 0, &ended).0, "");
}

#[test]
fn a_gate_that_is_shut_on_suspicion_keeps_its_sessions() {
    let (mut machine, _) = steering();
    let targets = [target("n1", Wanted::Pause, false), target("n2", Wanted::End, true)];
    assert_eq!(line(&machine.handle_targets(&targets)), "set server pg/n1 weight 0%");
}

#[test]
fn a_process_that_was_started_anew_gets_all_orders() {
    let (mut machine, targets) = steering();
    // At the start of HAProxy every server is UP.
    let commands =
        machine.handle_observed(observed(8, &[up("n1"), up("n2")]), Some(&targets), START);
    assert_eq!(line(&commands), "set server pg/n2 weight 0%");
    assert_eq!(machine.process(), Some((8, 0)));
}

#[test]
fn after_a_loss_nothing_is_sent_before_an_observation() {
    let (mut machine, _) = steering();
    machine.note_loss();
    let targets = [target("n1", Wanted::End, false), target("n2", Wanted::Serve, false)];
    assert_eq!(machine.handle_targets(&targets), []);
    let mut n1 = up("n1");
    n1.sessions = 3;
    let commands = machine.handle_observed(observed(7, &[n1, out("n2")]), Some(&targets), START);
    assert_eq!(
        line(&commands),
        "set server pg/n1 weight 0%;shutdown sessions server pg/n1;set server pg/n2 health up"
    );
}

#[test]
fn without_orders_nothing_is_sent() {
    let mut machine = machine();
    assert_eq!(machine.handle_observed(observed(7, &[up("n1"), up("n2")]), None, START), []);
    assert_eq!(machine.process(), None, "the orders are sent when they are known");
}

#[test]
fn a_member_with_another_role_is_left_to_the_health_check_while_that_keeps_it_out() {
    let (mut machine, targets) = steering();
    let mut see = |n2: Server| {
        let observed = observed(7, &[up("n1"), n2]);
        line(&machine.handle_observed(observed, Some(&targets), START))
    };
    let weightless = |server: Server| Server { weight: 0, ..server };
    assert_eq!(see(weightless(out("n2"))), "set server pg/n2 weight 100%");
    assert_eq!(see(up("n2")), "set server pg/n2 weight 0%");
    assert_eq!(see(weightless(up("n2"))), "");
    let down_by_command = Server { check_fails: false, ..weightless(out("n2")) };
    assert_eq!(see(down_by_command), "", "its last check passed, so the next one makes it UP");
}

#[test]
fn a_promoting_member_is_blocked_again() {
    let (mut machine, _) = steering();
    let targets = [target("n1", Wanted::End, false), target("n2", Wanted::End, false)];
    assert_eq!(
        line(&machine.handle_targets(&targets)),
        "set server pg/n1 weight 0%;shutdown sessions server pg/n1;\
         set server pg/n2 weight 0%;shutdown sessions server pg/n2"
    );
}

#[test]
fn a_weight_that_another_program_sets_is_undone_with_growing_pauses() {
    let (mut machine, targets) = steering();
    let mut at = |seconds: u64| {
        let observed = observed(7, &[Server { weight: 0, ..up("n1") }, out("n2")]);
        let now = START + Duration::from_secs(seconds);
        line(&machine.handle_observed(observed, Some(&targets), now))
    };
    let restored = "set server pg/n1 weight 100%";
    assert_eq!([at(0), at(1), at(2), at(3), at(5), at(6)], ["", "", restored, "", "", restored]);
}

#[test]
fn what_a_person_has_set_is_left_and_shown() {
    let (mut machine, targets) = steering();
    for admin in [Admin::Maint, Admin::Drain] {
        let n1 = Server { admin, is_up: admin == Admin::Drain, ..up("n1") };
        let seen = observed(7, &[n1.clone(), out("n2")]);
        assert_eq!(machine.handle_observed(seen, Some(&targets), START), []);
        let steered = machine.steered(&targets);
        let mut differences = Differences::default();
        let difference =
            |views: Vec<super::view::ServerView>| views.first().and_then(|view| view.difference);
        assert_eq!(difference(differences.views(&steered, START)), None, "it has to last");
        let later = START + Duration::from_secs(2);
        let found = difference(differences.views(&steered, later));
        assert_eq!(found, Some(Difference::ByHand(admin)));
    }
    // In a switchover as well.
    let targets = [target("n1", Wanted::End, false), target("n2", Wanted::Serve, false)];
    let commands = line(&machine.handle_targets(&targets));
    assert!(!commands.contains("state"), "{commands}");
}

#[test]
fn a_difference_is_found() {
    let serve = Order { wanted: Wanted::Serve, has_other_role: false };
    let end = Order { wanted: Wanted::End, has_other_role: false };
    let sessions = |count| Server { weight: 0, sessions: count, ..up("n1") };
    assert_eq!(difference(&up("n1"), serve), None);
    assert_eq!(difference(&out("n1"), serve), Some(Difference::CheckFails));
    assert_eq!(difference(&sessions(0), serve), Some(Difference::NoWeight));
    assert_eq!(difference(&up("n1"), end), Some(Difference::Serves));
    assert_eq!(difference(&sessions(2), end), Some(Difference::Sessions(2)));
    assert_eq!(difference(&sessions(0), end), None);
}

#[test]
fn a_server_is_found_by_its_name_or_else_by_its_address() {
    let mut machine = machine();
    let targets = [target("n1", Wanted::Pause, false), target("n2", Wanted::Pause, false)];
    let at = |name, address: &str, port| Server {
        address: Some(address.parse().unwrap()),
        port,
        ..up(name)
    };
    let servers =
        [at("n1", "192.0.2.1", 1), at("db-two", "10.0.0.2", 5432), at("x", "10.0.0.2", 1)];
    let commands = machine.handle_observed(observed(7, &servers), Some(&targets), START);
    assert_eq!(line(&commands), "set server pg/n1 weight 0%;set server pg/db-two weight 0%");
}

/// The names in haproxy.cfg are swapped: the primary's server has the name of the replica.
#[test]
fn a_server_at_the_address_of_another_member_is_that_members() {
    let mut machine = machine();
    let targets = [target("n1", Wanted::Serve, false), target("n2", Wanted::End, false)];
    let at = |name, host| Server { address: Some([10, 0, 0, host].into()), port: 5432, ..up(name) };
    let commands =
        machine.handle_observed(observed(7, &[at("n1", 2), at("n2", 1)]), Some(&targets), START);
    assert_eq!(line(&commands), "set server pg/n1 weight 0%");
    let lacks = machine.lacks(&targets).join("\n");
    assert!(lacks.contains("server n1 in backend pg of HAProxy is at the address of member n2"));
}

#[test]
fn a_process_with_the_same_id_that_was_started_later_is_another_one() {
    let (mut machine, targets) = steering();
    let mut seen = observed(7, &[up("n1"), up("n2")]);
    seen.process.started_seconds = 1;
    assert_eq!(
        line(&machine.handle_observed(seen, Some(&targets), START)),
        "set server pg/n2 weight 0%"
    );
}

#[test]
fn a_missing_backend_and_a_missing_server_are_named() {
    let mut machine = machine();
    let targets = [target("n1", Wanted::Serve, false)];
    machine.handle_observed(observed(7, &[]), Some(&targets), START);
    let lacks = machine.lacks(&targets).join("\n");
    assert!(lacks.contains("backend pg") && lacks.contains("member n1"), "{lacks}");
    machine.handle_observed(Observed::default(), Some(&targets), START);
    let lacks = machine.lacks(&targets).join("\n");
    assert!(lacks.contains("no backend pg for service write"), "{lacks}");
}

const KEYWORDS: &str = "check port 8008 agent-check agent-port 5555";

/// The state machine of a HAProxy whose backend has n1, with a server added for n2.
fn joining() -> (Machine, [Target; 2]) {
    let write = ServiceName::new("write").unwrap();
    let mut machine = Machine::new(BTreeMap::from([(write, "pg".to_owned())]), Some(KEYWORDS));
    let targets = [target("n1", Wanted::Serve, false), target("n2", Wanted::End, true)];
    machine.handle_observed(observed(7, &[up("n1")]), Some(&targets), START);
    assert_eq!(machine.lacks(&targets), Vec::<String>::new(), "it is about to be added");
    assert_eq!(
        carry_out(&mut machine, &targets, START),
        format!(
            "add server pg/n2 10.0.0.2:5432 {KEYWORDS};set server pg/n2 weight 0%;\
             enable health pg/n2;enable agent pg/n2;set server pg/n2 state ready"
        )
    );
    (machine, targets)
}

/// The commands that add and remove servers, all of which HAProxy carries out.
fn carry_out(machine: &mut Machine, targets: &[Target], now: Moment) -> String {
    let commands = machine.handle_members(targets, now);
    for command in &commands {
        machine.note_member_result(command, true, None, now);
    }
    line(&commands)
}

/// n2 as it was added.
fn n2() -> Server {
    Server { address: Some([10, 0, 0, 2].into()), port: 5432, ..up("n2") }
}

#[test]
fn a_member_without_a_server_gets_one_and_loses_it_when_it_has_left() {
    let (mut machine, mut targets) = joining();
    let mut see = |n2: Server, targets: &[Target]| {
        machine.handle_observed(observed(7, &[up("n1"), n2]), Some(targets), START);
        carry_out(&mut machine, targets, START)
    };
    assert_eq!(see(n2(), &targets), "");
    let maintained = Server { admin: Admin::Maint, ..n2() };
    assert_eq!(see(maintained.clone(), &targets), "", "a person has set it");
    targets[1].has_left = true;
    assert_eq!(see(n2(), &targets), "set server pg/n2 state maint");
    assert_eq!(see(Server { sessions: 1, ..maintained.clone() }, &targets), "");
    // The member returns before the last session has ended.
    targets[1].has_left = false;
    assert_eq!(see(maintained.clone(), &targets), "set server pg/n2 state ready");
    // It moves: its server is replaced.
    targets[1].addresses = vec![[10, 0, 0, 9].into()];
    assert_eq!(see(n2(), &targets), "set server pg/n2 state maint");
    // A member that is forgotten is like one that has left.
    assert_eq!(see(maintained, &targets[..1]), "disable agent pg/n2;del server pg/n2");
    assert_eq!(see(n2(), &targets[..1]), "", "a server that was added later by another program");
}

#[test]
fn servers_of_the_configuration_are_never_removed_and_a_new_process_gets_the_others_again() {
    let (mut machine, mut targets) = joining();
    targets[0].has_left = true;
    machine.handle_observed(observed(7, &[up("n1"), n2()]), Some(&targets), START);
    assert_eq!(machine.handle_members(&targets, START), []);
    machine.handle_observed(observed(8, &[up("n1")]), Some(&targets), START);
    assert!(carry_out(&mut machine, &targets, START).starts_with("add server pg/n2 "));
    // Another process whose configuration has n2.
    targets[1].has_left = true;
    machine.handle_observed(observed(9, &[up("n1"), n2()]), Some(&targets), START);
    assert_eq!(machine.handle_members(&targets, START), []);
}

#[test]
fn a_refused_server_is_named_and_tried_again_later() {
    let (mut machine, targets) = joining();
    let [command] = <[_; 1]>::try_from(machine.handle_members(&targets, START)).unwrap();
    let refusal = Some("Backend must use a dynamic load balancing".to_owned());
    machine.note_member_result(&command, false, refusal, START);
    machine.handle_observed(observed(7, &[up("n1")]), Some(&targets), START);
    let lacks = machine.lacks(&targets).join("\n");
    assert!(lacks.contains("refuses to add it: Backend must use"), "{lacks}");
    assert_eq!(machine.handle_members(&targets, START), []);
    let later = START + Duration::from_secs(60);
    assert!(line(&machine.handle_members(&targets, later)).starts_with("add server pg/n2 "));
}

/// A socket whose peer reads the command and sends `answer`; it keeps the connection if `is_kept`.
fn fake(answer: &'static [u8], is_kept: bool) -> (tempdir::Folder, HaproxySocket) {
    let folder = tempdir::Folder::new();
    let path = folder.0.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
            if is_kept {
                kept.push(stream);
            }
        }
    });
    (folder, HaproxySocket::Unix(path))
}

/// A HAProxy with a frontend and a backend `pg`: by that name `show stat` finds the frontend, which has no
/// servers.
fn with_a_frontend_of_the_same_name() -> (tempdir::Folder, HaproxySocket) {
    let folder = tempdir::Folder::new();
    let path = folder.0.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        const STATISTICS: &str =
            "# pxname,svname,qcur,scur,status,lastchg,check_status,lastsess,\n";
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut command = vec![0; 1024];
            let length = stream.read(&mut command).await.unwrap();
            let answer = match String::from_utf8_lossy(&command[..length]).trim() {
                "show info" => "Name: HAProxy\nVersion: 2.6.12\nPid: 7\n".to_owned(),
                "show backend" => "# name\npg\n".to_owned(),
                "show servers state pg" => {
                    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state \
                     srv_admin_state srv_uweight srv_port\n3 pg 1 n1 10.0.0.1 2 0 1 5432\n"
                        .to_owned()
                }
                "show stat 3 4 -1" => format!("{STATISTICS}pg,n1,0,5,UP,1,L7OK,1,\n"),
                _ => STATISTICS.to_owned(),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (folder, HaproxySocket::Unix(path))
}

#[tokio::test]
async fn a_frontend_with_the_name_of_the_backend_hides_no_sessions() {
    let (_folder, socket) = with_a_frontend_of_the_same_name();
    let seen = observe(&socket, LIMIT * 20, None, vec!["pg".to_owned()]).await.unwrap();
    let Seen::Servers(observed) = seen else { panic!("the servers were not read") };
    assert_eq!(observed.backends["pg"].first().map(|server| server.sessions), Some(5));
}

mod tempdir {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder that is removed at the end of the test.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new() -> Folder {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("pgsteer-haproxy-{}-{number}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

const LIMIT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_socket_that_hangs_ends_after_the_limit_and_is_named() {
    let (_folder, socket) = fake(b"Name: HAProxy\n", true);
    let error = exchange(&socket, LIMIT, "show info").await.unwrap_err();
    assert!(matches!(error, ExchangeError::Timeout(_)), "{error}");
}

#[tokio::test]
async fn garbage_and_endless_answers_are_refused() {
    let (_folder, socket) = fake(b"\xff\xfe\0garbage", false);
    let answer = exchange(&socket, LIMIT, "show info").await.unwrap();
    assert!(process(&answer).unwrap_err().to_string().contains("no HAProxy answers there"));
    static MUCH: [u8; 5 << 20] = [b'a'; 5 << 20];
    let (_folder, socket) = fake(&MUCH, false);
    let error = exchange(&socket, LIMIT * 20, "show stat").await.unwrap_err();
    assert!(matches!(error, ExchangeError::TooLong), "{error}");
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let socket = HaproxySocket::Unix("/nowhere/admin.sock".into());
    let error = exchange(&socket, LIMIT, "show info").await.unwrap_err().to_string();
    assert!(error.contains("no such socket"), "{error}");
}
