//! A client that sends exactly the bytes that a test chooses.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pgsteer_wire::error::read_error;
use socket2::{Domain, Socket, Type};

use crate::wire;

/// Longer than any step of these tests takes, however busy the machine is.
pub const LIMIT: Duration = Duration::from_secs(10);

pub struct Client {
    pub stream: TcpStream,
}

/// An error as a client reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub sqlstate: String,
    pub message: String,
    /// All its fields, unchanged.
    pub text: String,
}

impl Client {
    pub fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&to, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream }
    }

    /// Connects from this address of the machine.
    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Client {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream }
    }

    /// A client that has sent its startup packet.
    pub fn start(to: SocketAddr) -> Client {
        let mut client = Client::connect(to);
        client.send(&wire::startup(0));
        client
    }

    /// A client that is logged in.
    pub fn log_in(to: SocketAddr) -> Client {
        let mut client = Client::start(to);
        client.read_burst();
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends bytes that the other side may refuse.
    pub fn try_to_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The type and body of the next message.
    pub fn read_message(&mut self) -> (u8, Vec<u8>) {
        let header = self.read(5);
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        (header[0], self.read(usize::try_from(length).unwrap() - 4))
    }

    /// All messages up to ReadyForQuery, which must come.
    pub fn read_burst(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            let (kind, body) = self.read_message();
            assert_ne!(kind, b'E', "refused: {:?}", read_error(&body));
            messages.push((kind, body));
            if kind == b'Z' {
                return messages;
            }
        }
    }

    /// The error that must come, and the end of the connection after it.
    pub fn read_refusal(&mut self) -> Refusal {
        let (kind, body) = self.read_message();
        assert_eq!(kind, b'E', "not an error: {:?}", String::from_utf8_lossy(&body));
        self.read_end();
        let (sqlstate, message) = read_error(&body);
        Refusal { sqlstate, message, text: String::from_utf8_lossy(&body).into_owned() }
    }

    /// The end of the connection, without a message before it.
    pub fn read_end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection does not end: {error}"),
        }
        assert!(rest.is_empty(), "before the end came {:?}", String::from_utf8_lossy(&rest));
    }

    /// Runs a query with an empty answer, and so proves that the session works.
    pub fn ask(&mut self) {
        self.send(&wire::query("SELECT"));
        assert_eq!(self.read_message().0, b'C');
        assert_eq!(self.read_message().0, b'Z');
    }

    /// Fails if a byte or the end of the connection arrives within 150 ms.
    pub fn expect_silence(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        let heard = self.stream.read(&mut [0; 1]);
        self.stream.set_read_timeout(Some(LIMIT)).unwrap();
        match heard {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("something came: {other:?}"),
        }
    }

    /// Shuts its sending side down and keeps reading.
    pub fn end_its_side(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// Repeats the check until it holds.
pub fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !check() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
