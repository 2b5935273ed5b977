//! The bytes between the two connections of a session that do not depend on a pump.

/// ReadyForQuery consists of `Z`, the length 5, and the state of the transaction.
pub const READY_FOR_QUERY: [u8; 5] = [b'Z', 0, 0, 0, 5];
/// The length of ReadyForQuery.
pub const TAIL_BYTES: usize = READY_FOR_QUERY.len() + 1;

/// The last bytes of a server; zeroes if they cannot be read.
pub type Tail = [u8; TAIL_BYTES];

/// The last of `bytes`.
pub fn tail(bytes: &[u8]) -> Tail {
    bytes.last_chunk().copied().unwrap_or_default()
}

/// The bytes of a session that a pump needs from the one before it, or from the login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The last bytes of the server; zeroes if they cannot be read.
    pub tail: Tail,
    /// Bytes of the client that the server has not accepted yet.
    pub to_server: Vec<u8>,
    /// Bytes of the server that the client has not accepted yet.
    pub to_client: Vec<u8>,
}

impl Flow {
    /// A session whose login ended with these bytes of the server.
    pub fn after(tail: Tail) -> Flow {
        Flow { tail, ..Flow::default() }
    }

    /// Returns true if the client has received all bytes of the server, and the last ones are a whole
    /// ReadyForQuery.
    pub fn is_at_boundary(&self) -> bool {
        self.to_client.is_empty() && self.tail.starts_with(&READY_FOR_QUERY)
    }
}
