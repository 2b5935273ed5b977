//! A crowd of clients leaves the hold: they are connected one after the other, and no client is
//! forgotten.

use std::time::Duration;

use crate::client::{Client, eventually};
use crate::fake_server::FakeServer;
use crate::front::Front;

const CROWD: usize = 40;
/// The number of logins at a member at once before its first answer.
const TURNS: usize = 4;

fn crowd(front: &Front) -> Vec<Client> {
    let clients: Vec<Client> = (0..CROWD).map(|_| Client::start(front.write)).collect();
    front.wait_until_held("write", CROWD);
    clients
}

#[test]
fn all_clients_are_served() {
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
fn a_silent_member_gets_a_limited_number_of_logins() {
    let silent = FakeServer::new(|talk| talk.stay_silent());
    let front = Front::of(&[&silent]);
    front.shut("write", "n1");
    let clients = crowd(&front);
    front.open("write", "n1");
    eventually("the first are there", || silent.connections() == TURNS);
    // The gate has opened for all of them, as the first connections show: without the limit the
    // others would connect at once, too.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(silent.connections(), TURNS);
    drop(clients);
    front.wait_until_empty();
}

#[test]
fn clients_leave_the_queue_of_a_gate_that_shuts() {
    let (silent, other) =
        (FakeServer::new(|talk| talk.stay_silent()), FakeServer::welcoming("off"));
    let front = Front::of(&[&silent, &other]);
    front.shut("write", "n1");
    let mut clients = crowd(&front);
    front.open("write", "n1");
    eventually("the first are there", || silent.connections() == TURNS);
    // Nothing proves that the silent member is not the primary any more: its sessions may continue.
    front.shut("write", "n1");
    front.open("write", "n2");
    for client in &mut clients {
        client.read_burst();
    }
    assert_eq!(other.connections(), CROWD);
}
