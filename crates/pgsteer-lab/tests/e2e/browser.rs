//! A real browser that shows the live page: Debian's Chromium, driven by `tests/browser/page.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::installed::installed;
use crate::steer::Steer;

/// Longer than any command of the script waits.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long the browser may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// The folder for the pictures; a temporary one without it.
const OUT: &str = "PGSTEER_PICTURES_OUT";

/// Browsers of several sizes, each with the live page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    /// None when it has to end.
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Browser {
    /// Opens the page of `steer`. Pictures go to `folder`.
    pub fn open(steer: &Steer, folder: &Path) -> Result<Browser> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/page.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .arg(node_modules()?)
            .arg(format!("http://{}/", steer.doors.http))
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run node")?;
        let commands = child.stdin.take();
        let printed = child.stdout.take().context("no stdout")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(printed).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let browser = Browser { child, commands, answers };
        browser.answer("to open the page")?;
        Ok(browser)
    }

    /// Runs a command of the script and returns what it found.
    pub fn ask(&mut self, command: &[&str]) -> Result<String> {
        let commands = self.commands.as_mut().context("no stdin")?;
        writeln!(commands, "{}", command.join("\t")).context("the browser has ended")?;
        self.answer(&command.join(" "))
    }

    /// Waits for the answer to a command.
    fn answer(&self, command: &str) -> Result<String> {
        let line = self
            .answers
            .recv_timeout(PATIENCE)
            .with_context(|| format!("the browser does not answer: {command}"))?;
        match line.strip_prefix("ok ") {
            Some(found) => Ok(found.to_owned()),
            None => bail!("{command}: {line}"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The script ends its browser at the end of its commands.
        self.commands = None;
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // The browser ends with the pipe to its driver.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of node's modules.
fn node_modules() -> Result<PathBuf> {
    let modules = installed("clients/node/node_modules/playwright-core")?;
    modules.parent().map(Path::to_path_buf).context("a module is in no folder")
}

/// Returns true if Chromium and its driver are installed.
pub fn is_installed() -> bool {
    Path::new("/usr/bin/chromium").exists() && node_modules().is_ok()
}

/// Returns true if the tests run to make pictures and figures, with the release build.
pub fn is_measured() -> bool {
    std::env::var_os(OUT).is_some()
}

/// The folder for pictures.
pub fn pictures(otherwise: &Path) -> Result<PathBuf> {
    let folder = std::env::var_os(OUT).map_or_else(|| otherwise.join("pictures"), PathBuf::from);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
