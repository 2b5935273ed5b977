//! The agent over real sockets: whole lines, lines in pieces, no line, and many slow clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use pgsteer_core::question::Question;
use pgsteer_core::settings::{Vocabulary, Weight};
use pgsteer_core::time::Moment;

use super::*;
use crate::http::sample;

const LINE_WAIT: Duration = Duration::from_millis(50);
/// Longer than any step here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(10);

const PROMOTING: &str =
    "ready down #promotion under way: it holds the leader lock and is still in recovery\n";
const NO_LOCAL_MEMBER: &str =
    "ready down #no member is known to run on this machine: set `local` in [cluster]; or --local\n";

struct Asked {
    address: SocketAddr,
    agent: Agent,
    config: AgentConfig,
    _snapshot: watch::Sender<Arc<Snapshot>>,
}

fn asked() -> Asked {
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let config = AgentConfig {
        listen: address,
        vocabulary: Vocabulary::Health,
        default: Question::read("primary", |_| false).unwrap(),
        pooler_port: None,
        line_wait: LINE_WAIT,
        awaits_first_line: true,
        weight: Weight::Unsaid,
        maxconn: None,
    };
    let (sender, snapshot) = watch::channel(Arc::new(sample::snapshot()));
    let (clock, heartbeat) = (Clock::start(), Arc::<Heartbeat>::default());
    heartbeat.beat(Moment::from_millis(1_000_000));
    let agent = Agent::start(listener, config.clone(), snapshot, clock, heartbeat).unwrap();
    Asked { address, agent, config, _snapshot: sender }
}

impl Asked {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, line: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(line.as_bytes()).unwrap();
        rest_of(&mut stream)
    }
}

fn rest_of(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_line_is_answered_by_a_line_and_the_end_of_the_connection() {
    let asked = asked();
    assert_eq!(asked.ask("write n2\n"), PROMOTING);
    assert_eq!(asked.ask("write n2\r\n"), PROMOTING);
    assert_eq!(asked.ask("write n2\nread n1\n"), PROMOTING);
    assert_eq!(asked.ask("\n"), NO_LOCAL_MEMBER);
    assert!(asked.ask("GET / HTTP/1.1\r\n").starts_with("ready down #"));
}

#[test]
fn a_client_that_sends_nothing_gets_the_default_answer() {
    let asked = asked();
    let began = Instant::now();
    assert_eq!(rest_of(&mut asked.connect()), NO_LOCAL_MEMBER);
    assert!(began.elapsed() >= LINE_WAIT, "it might still have sent a line");
    let mut silent = asked.connect();
    silent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(&mut silent), NO_LOCAL_MEMBER);
}

#[test]
fn without_a_line_wait_every_answer_comes_at_once() {
    let asked = asked();
    asked.agent.change(AgentConfig { line_wait: Duration::ZERO, ..asked.config.clone() });
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(rest_of(&mut asked.connect()), NO_LOCAL_MEMBER);
    }
    // With the wait of the other tests it would take 100 of them.
    assert!(began.elapsed() < 50 * LINE_WAIT, "{:?}", began.elapsed());
    let mut ended = asked.connect();
    ended.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(&mut ended), NO_LOCAL_MEMBER);
}

#[test]
fn happacs_clients_are_answered_at_once_until_a_client_sends_a_line() {
    let asked = asked();
    asked.agent.change(AgentConfig { awaits_first_line: false, ..asked.config.clone() });
    // The first client waits for a complete Snapshot.
    assert_eq!(rest_of(&mut asked.connect()), NO_LOCAL_MEMBER);
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(rest_of(&mut asked.connect()), NO_LOCAL_MEMBER);
    }
    assert!(began.elapsed() < 10 * LINE_WAIT, "{:?}", began.elapsed());
    assert_eq!(asked.ask("write n2\n"), PROMOTING);
    let began = Instant::now();
    assert_eq!(rest_of(&mut asked.connect()), NO_LOCAL_MEMBER);
    assert!(began.elapsed() >= LINE_WAIT, "it might send a line as well");
}

/// TCP repeats a lost packet after 200 ms, and the default answer is about another member.
#[test]
fn an_address_that_has_sent_a_line_gets_time_for_the_next_one() {
    let asked = asked();
    assert_eq!(asked.ask("write n2\n"), PROMOTING);
    let mut late = asked.connect();
    std::thread::sleep(4 * LINE_WAIT);
    late.write_all(b"write n2\n").unwrap();
    assert_eq!(rest_of(&mut late), PROMOTING);
    assert_eq!(rest_of(&mut asked.connect()), NO_LOCAL_MEMBER, "but not for ever");
}

#[test]
fn a_line_may_arrive_in_pieces_but_must_have_an_end() {
    let asked = asked();
    let mut slow = asked.connect();
    for piece in ["wri", "te n", "2\n"] {
        slow.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(2 * LINE_WAIT);
    }
    assert_eq!(rest_of(&mut slow), PROMOTING);
    assert_eq!(asked.ask("write n"), "ready down #the line has no end\n");
    let mut half_closed = asked.connect();
    half_closed.write_all(b"write n2").unwrap();
    half_closed.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(&mut half_closed), PROMOTING);
    assert_eq!(asked.ask(&"x".repeat(1_025)), "ready down #a line has at most 1024 bytes\n");
}

#[test]
fn a_thousand_clients_that_never_end_their_line_delay_no_other_client() {
    let asked = asked();
    let crowd: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut stream = asked.connect();
            stream.write_all(b"wri").unwrap();
            stream
        })
        .collect();
    // One after the other, the slow clients would take a quarter of an hour.
    for _ in 0..100 {
        assert_eq!(asked.ask("write n2\n"), PROMOTING);
    }
    drop(crowd);
    assert!(!asked.agent.has_failed());
}

#[test]
fn a_reload_changes_the_answer() {
    let asked = asked();
    asked.agent.change(AgentConfig { vocabulary: Vocabulary::Admin, ..asked.config.clone() });
    assert_eq!(asked.ask("write n2\n"), PROMOTING.replace("ready", "maint"));
}

#[test]
fn while_the_engine_is_stuck_every_answer_is_down() {
    let (_config, wanted) = watch::channel(asked().config);
    let (_snapshot, snapshot) = watch::channel(Arc::new(sample::calm()));
    let clock = Clock::start();
    let heartbeat = Arc::<Heartbeat>::default();
    let state = AgentState { config: wanted, snapshot, clock, heartbeat, served: Arc::default() };
    assert_ne!(state.answer(Ok(Some("write n2"))), "ready down #the engine of pgsteer is stuck\n");
    let start = Instant::now().checked_sub(2 * Heartbeat::STUCK_AFTER).unwrap();
    let late = AgentState { clock: Clock::since(start), ..state };
    assert_eq!(late.answer(Ok(Some("write n2"))), "ready down #the engine of pgsteer is stuck\n");
}
