//! A fake server: it listens, and every connection follows a script.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::wire;

const LIMIT: Duration = Duration::from_secs(30);
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();
const SSL: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// A fake server.
pub struct FakeServer {
    pub address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

/// What a server received from clients.
#[derive(Default)]
struct Received {
    /// Startup packets, cancel requests and requests for encryption, unchanged.
    packets: Vec<Vec<u8>>,
    /// The server's side of every connection, in the order of arrival.
    connections: Vec<TcpStream>,
}

/// One connection of the fake server.
pub struct Talk {
    pub stream: TcpStream,
    /// The client's first packet after requests for encryption.
    pub packet: Vec<u8>,
}

impl FakeServer {
    /// Runs `script` after the startup packet. TLS is denied.
    pub fn new(script: impl Fn(&mut Talk) + Send + Sync + 'static) -> FakeServer {
        FakeServer::listening(listen(), script)
    }

    /// On the same host as `other` with another port: a pooler that accepts every client.
    pub fn beside(other: &FakeServer, in_hot_standby: &'static str) -> FakeServer {
        let listener = TcpListener::bind((other.address.ip(), 0)).unwrap();
        FakeServer::listening(listener, move |talk| {
            talk.send(&wire::burst(in_hot_standby, &[0, 0, 0, 7, 1, 2, 3, 4]));
            talk.answer_queries();
        })
    }

    fn listening(
        listener: TcpListener,
        script: impl Fn(&mut Talk) + Send + Sync + 'static,
    ) -> FakeServer {
        let received = Arc::new(Mutex::new(Received::default()));
        let seen = Arc::clone(&received);
        let address = serve(listener, move |mut stream| {
            seen.lock().unwrap().connections.push(stream.try_clone().unwrap());
            loop {
                let packet = read_packet(&mut stream)?;
                seen.lock().unwrap().packets.push(packet.clone());
                if packet[4..8] != SSL {
                    script(&mut Talk { stream, packet });
                    return Some(());
                }
                stream.write_all(b"N").ok()?;
            }
        });
        FakeServer { address, received }
    }

    /// Leaves connection requests unanswered until it is woken, and then accepts every client.
    pub fn asleep(in_hot_standby: &'static str) -> (FakeServer, impl FnOnce()) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(own_address(), 0).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        // The backlog has room for one connection that is not accepted.
        let only = TcpStream::connect(address).unwrap();
        let wake = move || {
            drop(only);
            serve(socket.into(), move |mut stream| {
                let packet = read_packet(&mut stream)?;
                let mut talk = Talk { stream, packet };
                talk.send(&wire::burst(in_hot_standby, &[0, 0, 0, 7, 1, 2, 3, 4]));
                talk.answer_queries();
                Some(())
            });
        };
        (FakeServer { address, received: Arc::default() }, wake)
    }

    /// Accepts every client, and answers every query with an empty result.
    pub fn welcoming(in_hot_standby: &'static str) -> FakeServer {
        FakeServer::with_key(in_hot_standby, &[0, 0, 0, 7, 1, 2, 3, 4])
    }

    /// Same, with this cancel key.
    pub fn with_key(in_hot_standby: &'static str, key: &[u8]) -> FakeServer {
        let key = key.to_vec();
        FakeServer::new(move |talk| {
            if talk.packet[4..8] != CANCEL {
                talk.send(&wire::burst(in_hot_standby, &key));
                talk.answer_queries();
            }
        })
    }

    /// Sends these bytes instead of a login, and closes.
    pub fn sending(words: Vec<u8>) -> FakeServer {
        FakeServer::new(move |talk| talk.send(&words))
    }

    /// Runs `script` on the connection, from its first byte on.
    pub fn raw(script: impl Fn(TcpStream) + Send + Sync + 'static) -> FakeServer {
        let received = Arc::new(Mutex::new(Received::default()));
        let seen = Arc::clone(&received);
        let address = serve(listen(), move |stream| {
            seen.lock().unwrap().connections.push(stream.try_clone().ok()?);
            script(stream);
            Some(())
        });
        FakeServer { address, received }
    }

    /// An address without a listener.
    pub fn absent() -> FakeServer {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        FakeServer { address, received: Arc::default() }
    }

    /// The first packets of all clients so far.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().packets.clone()
    }

    /// The number of its connections so far.
    pub fn connections(&self) -> usize {
        self.received.lock().unwrap().connections.len()
    }

    /// The number of its connections that the other side has not ended yet.
    pub fn connections_open(&self) -> usize {
        let received = self.received.lock().unwrap();
        received.connections.iter().filter(|stream| is_open(stream)).count()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        for stream in &self.received.lock().unwrap().connections {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Talk {
    /// Sends bytes to a client that may be gone.
    pub fn send(&mut self, words: &[u8]) {
        let _ = self.stream.write_all(words);
    }

    /// The client's next message, with type and length; None if the client is gone.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut body).ok()?;
        Some([&header[..], &body].concat())
    }

    /// Answers every query with an empty result, until the client disconnects.
    pub fn answer_queries(&mut self) {
        while let Some(message) = self.receive() {
            match message[0] {
                b'Q' => self.send(&wire::done()),
                b'X' => return,
                _ => {}
            }
        }
    }

    /// Waits until the client disconnects, without an answer.
    pub fn stay_silent(&mut self) {
        let _ = std::io::copy(&mut self.stream, &mut std::io::sink());
    }
}

/// An unused address for each listener, so that ports cannot collide.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id().to_le_bytes()[0] % 100 + 100;
    IpAddr::V4(Ipv4Addr::new(127, process, high, low.max(1)))
}

fn listen() -> TcpListener {
    TcpListener::bind((own_address(), 0)).unwrap()
}

fn serve(
    listener: TcpListener,
    script: impl Fn(TcpStream) -> Option<()> + Send + Sync + 'static,
) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = Arc::clone(&script);
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let ours = stream.try_clone();
                script(stream);
                // Dropping it would not end it, because the list of connections holds a copy.
                ours.and_then(|ours| ours.shutdown(Shutdown::Both))
            });
        }
    });
    address
}

/// Peeks at a connection without waiting, and without an effect on its reader.
fn is_open(stream: &TcpStream) -> bool {
    const PEEK_AND_DO_NOT_WAIT: i32 = 0x02 | 0x40;
    let mut byte = [MaybeUninit::uninit(); 1];
    match SockRef::from(stream).recv_with_flags(&mut byte, PEEK_AND_DO_NOT_WAIT) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn read_packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
    stream.read_exact(&mut rest).ok()?;
    Some([&length[..], &rest].concat())
}
