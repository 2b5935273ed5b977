//! Out of file descriptors: the process and its sessions continue.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Client, LIMIT, eventually};
use crate::fake_patroni::FakePatroni;
use crate::fake_server::{FakeServer, own_address};
use crate::wire;

/// A pgsteer process with a low limit of open files.
struct Poor {
    child: Child,
    write: SocketAddr,
    log: PathBuf,
    _patroni: FakePatroni,
}

impl Poor {
    fn start(server: &FakeServer, files: u32) -> Poor {
        let ip = own_address();
        let patroni = FakePatroni::of_primary(ip, server.address, Vec::new());
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("poor-{files}.log"));
        let child = Command::new("sh")
            .args(["-c", "ulimit -n $0; exec \"$@\""])
            .arg(files.to_string())
            .args([env!("CARGO_BIN_EXE_pgsteer"), "run", "--patroni", &patroni.url()])
            .args(["--write", &format!("{ip}:5000"), "--read", &format!("{ip}:5001")])
            .args(["--http", "none"])
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let poor = Poor { child, write: SocketAddr::new(ip, 5000), log, _patroni: patroni };
        eventually("pgsteer listens", || TcpStream::connect(poor.write).is_ok());
        poor
    }

    /// Waits for the one free place: the end of earlier connections takes a moment to be noticed.
    fn first_to_get_in(&self) -> Client {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut client = Client::start(self.write);
            if client.read_message().0 == b'R' {
                client.read_burst();
                return client;
            }
            assert!(Instant::now() < deadline, "no client is served: {}", self.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn ensure_alive(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "pgsteer has ended: {}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }
}

impl Drop for Poor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The files for clients are limited, so that some are always left for the sources.
#[test]
fn a_crowd_does_not_take_the_files_that_the_sources_need() {
    let server = FakeServer::welcoming("off");
    let mut poor = Poor::start(&server, 300);
    let mut kept = Client::log_in(poor.write);
    let mut crowd: Vec<Client> = (0..200).map(|_| Client::start(poor.write)).collect();
    // Long enough for several requests to Patroni.
    std::thread::sleep(Duration::from_secs(4));
    kept.ask();
    assert!(crowd.drain(150..).all(|mut client| client.read_refusal().sqlstate == "53300"));
    assert!(poor.log().contains("at most 44 sessions instead of 10000"), "{}", poor.log());
    assert!(!poor.log().contains("is shut"), "{}", poor.log());
    assert!(!poor.log().contains("cannot accept"), "{}", poor.log());
    poor.ensure_alive();
    drop(crowd);
    poor.first_to_get_in().ask();
}

/// Even if that limit comes too late, the process only waits.
#[test]
fn a_process_out_of_files_recovers_when_files_are_free() {
    let server = FakeServer::welcoming("off");
    let mut poor = Poor::start(&server, 60);
    let mut kept = poor.first_to_get_in();
    let crowd: Vec<TcpStream> =
        (0..120).map(|_| TcpStream::connect_timeout(&poor.write, LIMIT).unwrap()).collect();
    eventually("it is out of files", || poor.log().contains("cannot accept a connection"));
    kept.ask();
    poor.ensure_alive();
    drop(crowd);
    kept.send(&wire::message(b'X', b""));
    kept.read_end();
    poor.first_to_get_in().ask();
    poor.ensure_alive();
}
