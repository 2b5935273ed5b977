//! A statement that a client sends before the end of its login is never executed twice, even if
//! the server closes the connection after any byte of its answers.

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
    Send(Vec<u8>),
    Receive,
}

/// A server whose next connection breaks off after this number of bytes. Its other connections are
/// complete.
struct Breaking {
    server: FakeServer,
    break_at: Arc<AtomicUsize>,
    /// Statements that arrived on connections whose login was not finished.
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
                    Step::Send(bytes) if left < bytes.len() => {
                        talk.send(&bytes[..left]);
                        let count = statements_left(talk);
                        too_early.fetch_add(count, Ordering::SeqCst);
                        statements.fetch_add(count, Ordering::SeqCst);
                        return;
                    }
                    Step::Send(bytes) => {
                        talk.send(bytes);
                        left = left.saturating_sub(bytes.len());
                    }
                    Step::Receive => assert_eq!(talk.receive().map(|answer| answer[0]), Some(b'p')),
                }
            }
            while let Some(message) = talk.receive() {
                if message[0] == b'Q' {
                    statements.fetch_add(1, Ordering::SeqCst);
                    talk.send(&wire::done());
                }
            }
        });
        let [break_at, too_early, statements] = counters;
        Breaking { server, break_at, too_early, statements }
    }
}

/// Ends the server's side, and counts the statements in all that the proxy sent.
fn statements_left(talk: &mut Talk) -> usize {
    let _ = talk.stream.shutdown(Shutdown::Write);
    let mut sent = Vec::new();
    let _ = talk.stream.read_to_end(&mut sent);
    sent.windows(6).filter(|bytes| *bytes == b"INSERT").count()
}

/// A client sends all its bytes at once. The server breaks off after every possible number of
/// bytes. Returns the number of clients that were served and of those that were refused.
fn tries(login: Vec<Step>) -> (usize, usize) {
    let answers = login.iter().filter(|step| matches!(step, Step::Receive)).count();
    let sent = |step: &Step| if let Step::Send(bytes) = step { bytes.len() } else { 0 };
    let positions: usize = login.iter().map(sent).sum();
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
    Step::Send(wire::authentication(code, rest))
}

#[test]
fn a_statement_behind_the_startup_packet_is_executed_once() {
    let login = vec![Step::Send(wire::burst("off", &KEY))];
    let (served, refused) = tries(login);
    assert!(served > 50, "{served}");
    assert_eq!(refused, 0);
}

#[test]
fn a_statement_behind_a_password_is_executed_once() {
    let login = vec![asks(3, b""), Step::Receive, Step::Send(wire::burst("off", &KEY))];
    let (served, refused) = tries(login);
    assert!(served > 50, "{served}");
    assert_eq!(refused, 0);
}

/// After the server's nonce was sent the login cannot start again, and the client is refused.
#[test]
fn a_statement_behind_a_challenge_is_executed_once_or_not_at_all() {
    let login = vec![
        asks(10, b"SCRAM-SHA-256\0\0"),
        Step::Receive,
        asks(11, b"nonce"),
        Step::Receive,
        Step::Send([wire::authentication(12, b"sig"), wire::burst("off", &KEY)].concat()),
    ];
    let (served, refused) = tries(login);
    assert!(served > 20, "{served}");
    assert!(refused > 50, "{refused}");
}
