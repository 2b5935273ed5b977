//! A pgsteer process.

use std::io::{PipeReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than any line of the log.
const LINE_BYTES: usize = 500;

const LIMIT: Duration = Duration::from_secs(15);

/// Runs pgsteer until it ends by itself.
pub fn run(words: &[&str]) -> Output {
    let mut child = command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("pgsteer {words:?} does not end: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Its output on stderr.
pub fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running pgsteer. It is killed at the end of the test.
pub struct Running {
    child: Child,
    http: SocketAddr,
    log: PathBuf,
    unread: Option<PipeReader>,
}

impl Running {
    /// Starts it with its three listeners at `ip`.
    pub fn start(ip: IpAddr, words: &[&str]) -> Running {
        let log = scratch(&format!("pgsteer-{ip}.log"));
        let stderr = std::fs::File::create(&log).unwrap();
        Running::begin(ip, words, |command| command.stderr(stderr))
    }

    /// Starts this copy of the program, so that the test can replace it.
    pub fn start_program(ip: IpAddr, program: &Path, words: &[&str]) -> Running {
        let log = scratch(&format!("pgsteer-{ip}.log"));
        let stderr = std::fs::File::create(&log).unwrap();
        Running::begin_program(ip, program, words, |command| command.stderr(stderr))
    }

    /// Starts it with a pipe of this size for its log, which is not read.
    pub fn start_unread(ip: IpAddr, pipe_bytes: usize, words: &[&str]) -> Running {
        let (reader, writer) = std::io::pipe().unwrap();
        fcntl_setpipe_size(&writer, pipe_bytes).unwrap();
        // Lines of level trace are not summarised, so they fill the pipe.
        let mut running =
            Running::begin(ip, words, |command| command.env("RUST_LOG", "trace").stderr(writer));
        running.unread = Some(reader);
        running
    }

    fn begin(
        ip: IpAddr,
        words: &[&str],
        log_to: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Running {
        Running::begin_program(ip, Path::new(env!("CARGO_BIN_EXE_pgsteer")), words, log_to)
    }

    fn begin_program(
        ip: IpAddr,
        program: &Path,
        words: &[&str],
        log_to: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Running {
        let at = |port| SocketAddr::new(ip, port).to_string();
        let doors = ["--write", &at(5000), "--read", &at(5001), "--http", &at(7000)];
        let log = scratch(&format!("pgsteer-{ip}.log"));
        let mut command = command_of(program, &[&["run"], words, &doors].concat());
        let child = log_to(&mut command).spawn().unwrap();
        let mut running = Running { child, http: SocketAddr::new(ip, 7000), log, unread: None };
        running.wait_for("its status page", |running| running.status().map(drop));
        running
    }

    /// The status document, if it is available.
    pub fn status(&mut self) -> Option<Value> {
        assert_eq!(self.child.try_wait().unwrap(), None, "pgsteer has ended: {}", self.log());
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.write_all(b"GET /api/v1/status HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// The state of a gate, and its reason if it has one.
    pub fn gate(&mut self, service: &str, member: &str) -> Option<(String, String)> {
        let status = self.status()?;
        let members = status["clusters"][0]["members"].as_array()?;
        let member = members.iter().find(|each| each["name"] == member)?;
        let gate = &member["services"][service];
        let reason = gate["reason"]["text"].as_str().unwrap_or_default();
        Some((gate["gate"].as_str()?.to_owned(), reason.to_owned()))
    }

    /// Repeats `look` until it returns a value.
    pub fn wait_for<T>(&mut self, what: &str, look: impl Fn(&mut Running) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if Instant::now() > deadline {
                panic!("never: {what}; {:#?}\n{}", self.status(), self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM and returns the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// Waits until it has ended by itself, and returns the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Makes it start a new process that takes over.
    pub fn upgrade(&self) {
        self.signal(Signal::USR2);
    }

    /// Makes it reload its file.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Returns whether at least this much of its log waits in the pipe, less one line: a line is
    /// written whole or not at all.
    pub fn is_unread(&self, bytes: usize) -> bool {
        let waiting = self.unread.as_ref().map(|pipe| ioctl_fionread(pipe).unwrap());
        waiting.is_some_and(|waiting| waiting as usize + LINE_BYTES > bytes)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(words: &[&str]) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_pgsteer")), words)
}

/// A command that starts this copy of the program.
pub fn command_of(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).env_remove("RUST_LOG");
    // No test finds the stored state of another one.
    command.env_remove("STATE_DIRECTORY").env_remove("XDG_STATE_HOME").env_remove("HOME");
    command
}

/// An address of this machine without other listeners.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id().to_le_bytes()[0] % 50 + 200;
    IpAddr::V4(Ipv4Addr::new(127, process, high, low + 1))
}

/// A path in cargo's folder for test files.
pub fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Writes a file there and returns its name.
pub fn file(name: &str, text: &str) -> String {
    let path = scratch(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}
