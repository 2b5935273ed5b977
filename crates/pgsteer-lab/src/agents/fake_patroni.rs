//! A listener at the address of a stopped Patroni that returns a given body.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// An incomplete JSON document.
pub const INCOMPLETE_JSON: &str = "{\"state\": \"running\", \"ro";

/// Answers until it is dropped.
#[derive(Debug)]
pub struct FakePatroni {
    ended: Arc<AtomicBool>,
    addr: SocketAddr,
    talker: Option<JoinHandle<()>>,
}

impl FakePatroni {
    /// Answers every request at `addr` with status 200 and `body`.
    pub fn start(addr: SocketAddr, body: &str) -> Result<Self> {
        let listener = take(addr).with_context(|| format!("cannot take {addr}"))?;
        let ended = Arc::new(AtomicBool::new(false));
        let its = ended.clone();
        let words = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
        let talker =
            std::thread::Builder::new().name("fake Patroni".to_owned()).spawn(move || {
                for stream in listener.incoming().flatten() {
                    if its.load(Ordering::Relaxed) {
                        return;
                    }
                    // A client that disconnects early is no error here.
                    let _ = answer(stream, words.as_bytes());
                }
            })?;
        Ok(Self { ended, addr, talker: Some(talker) })
    }
}

/// Binds `addr`. The killed process may keep the port for a moment.
fn take(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match TcpListener::bind(addr) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}

fn answer(mut stream: TcpStream, words: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    let _all_of_a_request = stream.read(&mut [0; 4096])?;
    stream.write_all(words)
}

impl Drop for FakePatroni {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The thread blocks in accept() until the next connection.
        let came = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
        if let (Ok(_), Some(talker)) = (came, self.talker.take()) {
            let _ = talker.join();
        }
    }
}
