//! The agent over real sockets: lines whole, in pieces and none, and a crowd that says nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use pgsteer_core::config::{Vocabulary, Weight};
use pgsteer_core::question::Question;
use pgsteer_core::time::Moment;

use super::*;
use crate::http::sample;

const LINE_WAIT: Duration = Duration::from_millis(50);
/// Nothing here takes so long, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(10);

const PROMOTING: &str =
    "ready down #promotion under way: it holds the leader lock and is still in recovery\n";
const NOBODY: &str =
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
fn a_line_is_answered_by_a_line_and_the_end() {
    let asked = asked();
    assert_eq!(asked.ask("write n2\n"), PROMOTING);
    assert_eq!(asked.ask("write n2\r\n"), PROMOTING);
    assert_eq!(asked.ask("write n2\nread n1\n"), PROMOTING);
    assert_eq!(asked.ask("\n"), NOBODY);
    assert!(asked.ask("GET / HTTP/1.1\r\n").starts_with("ready down #"));
}

#[test]
fn whoever_says_nothing_is_told_of_the_default() {
    let asked = asked();
    let began = Instant::now();
    assert_eq!(rest_of(&mut asked.connect()), NOBODY);
    assert!(began.elapsed() >= LINE_WAIT, "it might still have sent a line");
    let mut silent = asked.connect();
    silent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(&mut silent), NOBODY);
}

#[test]
fn where_nobody_sends_a_line_nobody_is_waited_for() {
    let asked = asked();
    asked.agent.change(AgentConfig { line_wait: Duration::ZERO, ..asked.config.clone() });
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(rest_of(&mut asked.connect()), NOBODY);
    }
    println!("100 answers in {:?}", began.elapsed());
    let mut ended = asked.connect();
    ended.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(&mut ended), NOBODY);
}

/// A packet that is lost comes again after 200 ms, and the default is about another member.
#[test]
fn who_has_sent_a_line_before_is_given_time_for_the_next() {
    let asked = asked();
    assert_eq!(asked.ask("write n2\n"), PROMOTING);
    let mut late = asked.connect();
    std::thread::sleep(4 * LINE_WAIT);
    late.write_all(b"write n2\n").unwrap();
    assert_eq!(rest_of(&mut late), PROMOTING);
    assert_eq!(rest_of(&mut asked.connect()), NOBODY, "but not for ever");
}

#[test]
fn a_line_may_come_in_pieces_but_has_to_end() {
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
fn a_crowd_that_begins_a_line_and_never_ends_it_holds_nobody_up() {
    let asked = asked();
    let crowd: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut stream = asked.connect();
            stream.write_all(b"wri").unwrap();
            stream
        })
        .collect();
    // If it took them one after the other, they would be over in a quarter of an hour.
    for _ in 0..100 {
        assert_eq!(asked.ask("write n2\n"), PROMOTING);
    }
    drop(crowd);
    assert!(!asked.agent.has_failed());
}

#[test]
fn a_reload_changes_the_words() {
    let asked = asked();
    asked.agent.change(AgentConfig { vocabulary: Vocabulary::Admin, ..asked.config.clone() });
    assert_eq!(asked.ask("write n2\n"), PROMOTING.replace("ready", "maint"));
}

#[test]
fn a_stuck_engine_lets_nobody_in() {
    let (_config, wanted) = watch::channel(asked().config);
    let (_snapshot, snapshot) = watch::channel(Arc::new(sample::calm()));
    let clock = Clock::start();
    let heartbeat = Arc::<Heartbeat>::default();
    let desk = Desk { config: wanted, snapshot, clock, heartbeat };
    assert_ne!(desk.answer(Ok(Some("write n2"))), "ready down #the engine of pgsteer is stuck\n");
    let start = Instant::now().checked_sub(2 * Heartbeat::STUCK_AFTER).unwrap();
    let late = Desk { clock: Clock::since(start), ..desk };
    assert_eq!(late.answer(Ok(Some("write n2"))), "ready down #the engine of pgsteer is stuck\n");
}
