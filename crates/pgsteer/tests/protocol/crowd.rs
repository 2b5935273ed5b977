//! A crowd that comes off the hold is let in one after the other, and nobody is forgotten.

use std::time::Duration;

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;

const CROWD: usize = 40;
/// How many a member is asked for at once before it has said a word.
const TURNS: usize = 4;

fn crowd(front: &Front) -> Vec<Client> {
    let clients: Vec<Client> = (0..CROWD).map(|_| Client::knock(front.write)).collect();
    front.wait_until_held("write", CROWD);
    clients
}

#[test]
fn everybody_is_let_in() {
    let server = FakeServer::welcoming("off");
    let front = Front::of(&[&server]);
    front.shut("write", "n1");
    let mut clients = crowd(&front);
    front.open("write", "n1");
    for client in &mut clients {
        client.read_burst();
        client.ask();
    }
    assert_eq!(server.connections(), CROWD);
}

#[test]
fn a_member_that_says_nothing_is_not_asked_by_all() {
    let silent = FakeServer::new(|talk| talk.stay_silent());
    let front = Front::of(&[&silent]);
    front.shut("write", "n1");
    let clients = crowd(&front);
    front.open("write", "n1");
    eventually("the first are there", || silent.connections() == TURNS);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(silent.connections(), TURNS);
    drop(clients);
    front.wait_until_empty();
}

#[test]
fn nobody_queues_for_a_gate_that_is_shut() {
    let (silent, other) =
        (FakeServer::new(|talk| talk.stay_silent()), FakeServer::welcoming("off"));
    let front = Front::of(&[&silent, &other]);
    front.shut("write", "n1");
    let mut clients = crowd(&front);
    front.open("write", "n1");
    eventually("the first are there", || silent.connections() == TURNS);
    // Nothing proves that the silent one is not the primary any more: its sessions may go on.
    front.shut("write", "n1");
    front.open("write", "n2");
    for client in &mut clients {
        client.read_burst();
    }
    assert_eq!(other.connections(), CROWD);
}
