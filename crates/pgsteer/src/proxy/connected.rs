//! A client's connection to a member.

use tokio::net::TcpStream;

use super::affinity::Sticking;
use super::capacity::Permit;
use super::held::Held;
use super::queue::Slot;
use super::seat::Seat;

/// A connection to a member, with the seat by which the session can be ended.
#[derive(Debug)]
pub struct Connected {
    /// The connection. Declared before the seat, so that it is closed first.
    pub server: TcpStream,
    /// The slot in the member's login queue. It is released at the first answer of the member.
    pub slot: Option<Slot>,
    /// The seat.
    pub seat: Seat,
    /// The permit for one session of the service.
    pub permit: Permit,
    /// Keeps the member of the client's address, with `stick = "address"`.
    pub sticking: Option<Sticking>,
    /// Set if the login is early: the gate of the member is shut and the client is on hold.
    pub held: Option<Held>,
}
