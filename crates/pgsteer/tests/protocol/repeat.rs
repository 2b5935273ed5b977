//! A statement that a client sends ahead of its login is never executed twice, wherever in its
//! answers a server breaks off.

use std::io::Read;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::Client;
use crate::fake_server::{FakeServer, Talk};
use crate::front::Front;
use crate::wire;

const KEY: [u8; 8] = [0, 0, 0, 7, 1, 2, 3, 4];

/// No position: the server does not break off.
const NEVER: usize = usize::MAX;

/// One step of a server in its login.
#[derive(Clone)]
enum Step {
    Say(Vec<u8>),
    Hear,
}

/// A server whose next connection breaks off after so many bytes, and whose others are whole.
struct Breaking {
    server: FakeServer,
    break_at: Arc<AtomicUsize>,
    /// Statements that were received on connections whose login was not done.
    too_early: Arc<AtomicUsize>,
    statements: Arc<AtomicUsize>,
}

impl Breaking {
    fn new(login: Vec<Step>) -> Breaking {
        let counters: [Arc<AtomicUsize>; 3] = std::array::from_fn(|_| Arc::default());
        counters[0].store(NEVER, Ordering::SeqCst);
        let [break_at, too_early, statements] = counters.clone();
        let server = FakeServer::new(move |talk| {
            let mut left = break_at.swap(NEVER, Ordering::SeqCst);
            for step in &login {
                match step {
                    Step::Say(bytes) if left < bytes.len() => {
                        talk.say(&bytes[..left]);
                        let count = statements_left(talk);
                        too_early.fetch_add(count, Ordering::SeqCst);
                        statements.fetch_add(count, Ordering::SeqCst);
                        return;
                    }
                    Step::Say(bytes) => {
                        talk.say(bytes);
                        left = left.saturating_sub(bytes.len());
                    }
                    Step::Hear => assert_eq!(talk.hear().map(|answer| answer[0]), Some(b'p')),
                }
            }
            while let Some(message) = talk.hear() {
                if message[0] == b'Q' {
                    statements.fetch_add(1, Ordering::SeqCst);
                    talk.say(&wire::done());
                }
            }
        });
        let [break_at, too_early, statements] = counters;
        Breaking { server, break_at, too_early, statements }
    }
}

/// Ends the server's side, and counts the statements in all that the proxy has sent.
fn statements_left(talk: &mut Talk) -> usize {
    let _ = talk.stream.shutdown(Shutdown::Write);
    let mut sent = Vec::new();
    let _ = talk.stream.read_to_end(&mut sent);
    sent.windows(6).filter(|bytes| *bytes == b"INSERT").count()
}

/// A client sends all that it will ever send at once. The server breaks off after every possible
/// number of bytes. Returns how many clients were served and how many were refused.
fn tries(login: Vec<Step>) -> (usize, usize) {
    let answers = login.iter().filter(|step| matches!(step, Step::Hear)).count();
    let said = |step: &Step| if let Step::Say(bytes) = step { bytes.len() } else { 0 };
    let positions: usize = login.iter().map(said).sum();
    let breaking = Breaking::new(login);
    let front = Front::of(&[&breaking.server]);
    let answer = wire::message(b'p', b"secret\0");
    let ahead = [wire::startup(0), answer.repeat(answers), wire::query("INSERT")].concat();
    let (mut served, mut refused) = (0, 0);
    for position in 0..positions {
        breaking.statements.store(0, Ordering::SeqCst);
        breaking.break_at.store(position, Ordering::SeqCst);
        let mut client = Client::connect(front.write);
        client.send(&ahead);
        let outcome = loop {
            let kind = client.read_message().0;
            if matches!(kind, b'C' | b'E') {
                break kind;
            }
        };
        let statements = breaking.statements.load(Ordering::SeqCst);
        assert_eq!(breaking.break_at.load(Ordering::SeqCst), NEVER, "it did break off");
        assert_eq!(statements, usize::from(outcome == b'C'), "broken off after {position} bytes");
        served += usize::from(outcome == b'C');
        refused += usize::from(outcome == b'E');
    }
    assert_eq!(breaking.too_early.load(Ordering::SeqCst), 0);
    (served, refused)
}

fn asks(code: u32, rest: &[u8]) -> Step {
    Step::Say(wire::authentication(code, rest))
}

#[test]
fn a_statement_behind_the_startup_packet_is_executed_once() {
    let login = vec![Step::Say(wire::burst("off", &KEY))];
    let (served, refused) = tries(login);
    assert!(served > 50, "{served}");
    assert_eq!(refused, 0);
}

#[test]
fn a_statement_behind_a_password_is_executed_once() {
    let login = vec![asks(3, b""), Step::Hear, Step::Say(wire::burst("off", &KEY))];
    let (served, refused) = tries(login);
    assert!(served > 50, "{served}");
    assert_eq!(refused, 0);
}

/// After the nonce has been shown the login cannot start again, and the client is refused.
#[test]
fn a_statement_behind_a_challenge_is_executed_once_or_not_at_all() {
    let login = vec![
        asks(10, b"SCRAM-SHA-256\0\0"),
        Step::Hear,
        asks(11, b"nonce"),
        Step::Hear,
        Step::Say([wire::authentication(12, b"sig"), wire::burst("off", &KEY)].concat()),
    ];
    let (served, refused) = tries(login);
    assert!(served > 20, "{served}");
    assert!(refused > 50, "{refused}");
}
