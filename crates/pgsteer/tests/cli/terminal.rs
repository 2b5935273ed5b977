//! A program in a terminal of its own: a pseudoterminal that the test reads and types into.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::write;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

const LIMIT: Duration = Duration::from_secs(20);

/// Follows the last byte of the program.
const END: &str = "(end)";

/// The size of the terminal at first.
const COLUMNS: usize = 80;
const LINES: usize = 24;

/// A program in a terminal of 80 columns and 24 lines.
pub struct Terminal {
    child: Child,
    keyboard: Option<File>,
    /// What the program sees. It keeps the terminal open after the end of the program.
    line: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn start(words: &[&str]) -> Terminal {
        let (child, keyboard, line) = begin(words);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, copy) = (keyboard.try_clone().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count) = reader.read(&mut bytes) {
                copy.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..count]);
            }
        });
        Terminal { child, keyboard: Some(keyboard), line, written }
    }

    /// All that the program has written.
    pub fn written(&self) -> String {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }

    /// The lines of the screen as they are now.
    pub fn shown(&self) -> Vec<String> {
        let mut lines = vec![vec![' '; COLUMNS]; LINES];
        let (mut row, mut column) = (0, 0);
        let written = self.written();
        let mut rest = written.chars();
        while let Some(letter) = rest.next() {
            if letter != '\u{1b}' {
                if let Some(cell) = lines.get_mut(row).and_then(|line| line.get_mut(column)) {
                    *cell = letter;
                }
                column += 1;
                continue;
            }
            // A control sequence: `[`, parameters, and a letter that names it.
            let mut sequence = String::new();
            for letter in rest.by_ref().skip(1) {
                sequence.push(letter);
                if letter.is_ascii_alphabetic() {
                    break;
                }
            }
            let name = sequence.pop();
            match name {
                Some('H') => {
                    let mut numbers = sequence.split(';').map(|it| it.parse().unwrap_or(1));
                    row = numbers.next().unwrap_or(1) - 1;
                    column = numbers.next().unwrap_or(1) - 1;
                }
                Some('J') => lines = vec![vec![' '; COLUMNS]; LINES],
                _ => {}
            }
        }
        lines.into_iter().map(|line| line.into_iter().collect()).collect()
    }

    /// Waits until the screen shows `text`.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(text, |lines| lines.iter().any(|line| line.contains(text)));
    }

    /// Waits until the screen is as `is_right` requires.
    pub fn wait_until(&self, what: &str, is_right: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_right(&self.shown()) {
            assert!(Instant::now() < deadline, "never {what:?}:\n{}", self.shown().join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Presses keys and waits until the screen shows `text`.
    pub fn press(&mut self, keys: &str, text: &str) {
        self.send(keys);
        self.wait_for(text);
    }

    /// Sends keys without waiting for anything.
    pub fn send(&mut self, keys: &str) {
        self.keyboard.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&self, cells: u16, lines: u16) {
        let size = Winsize { ws_row: lines, ws_col: cells, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.line, size).unwrap();
    }

    /// Returns true if the terminal shows typed characters and waits for whole lines, as for a shell.
    pub fn is_in_line_mode(&self) -> bool {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the program, and until all that it wrote is read.
    pub fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.written());
            std::thread::sleep(Duration::from_millis(10));
        };
        // Bytes of a terminal keep their order: once these are read, all before them are.
        assert_eq!(write(&self.line, END.as_bytes()).unwrap(), END.len());
        while !self.written().ends_with(END) {
            assert!(Instant::now() < deadline, "the terminal is not read: {:?}", self.written());
            std::thread::sleep(Duration::from_millis(10));
        }
        status
    }
}

/// Starts the program. Returns it with the two ends of its terminal: the one of the test and its own.
pub fn begin(words: &[&str]) -> (Child, File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let screen = openpt(flags).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let line = ioctl_tiocgptpeer(&screen, flags).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&line, size).unwrap();
    let stdio = || Stdio::from(line.try_clone().unwrap());
    // `setsid` makes it the controlling terminal, so that its size and its end are those of the test.
    let child = Command::new("setsid")
        .args(["--ctty", env!("CARGO_BIN_EXE_pgsteer")])
        .args(words)
        .env("TERM", "xterm")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("NO_COLOR")
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .unwrap();
    (child, File::from(screen), line)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
