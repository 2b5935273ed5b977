//! Fake servers for tests, which run the test's code on each connection, and a log for assertions.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens on loopback and runs `act` on each connection, one after the other. The argument is the
/// number of the connection, from 0.
pub async fn server<F, Fut>(act: F) -> SocketAddr
where
    F: Fn(TcpStream, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(act(stream, number));
        }
    });
    address
}

/// A fake that reads a request's head, writes `answer` and closes.
pub async fn http_server(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    server(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            read_head(&mut stream).await;
            // The client may close before all is written.
            let _ = stream.write_all(&answer).await;
        }
    })
    .await
}

/// Reads up to the empty line that ends a request's head.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Writes one byte at a time, each in its own packet.
pub async fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The log lines of the current thread.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Records log lines until the guard is dropped.
    pub fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let writer = Mutex::new(self.clone());
        tracing::subscriber::set_default(
            tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish(),
        )
    }

    /// The recorded log, one entry a line.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
