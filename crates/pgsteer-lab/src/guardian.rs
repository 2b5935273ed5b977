//! The guardian: a small shell process that outlives the lab and removes all of it.
//!
//! It is the one home of cleaning up. The lab ends by letting go of a pipe, on purpose or because it
//! was killed, and the guardian cannot tell the difference.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

const SCRIPT: &str = include_str!("guardian.sh");

#[derive(Debug)]
pub struct Guardian {
    process: Child,
}

impl Guardian {
    /// Started before anything that would have to be cleaned up, but for the empty folder.
    pub fn start(id: &str, folder: &Path, keep_logs_in: Option<&Path>) -> Result<Self> {
        let script = folder.join("guardian.sh");
        std::fs::write(&script, SCRIPT).context("cannot write the guardian's script")?;
        if let Some(keep) = keep_logs_in {
            std::fs::create_dir_all(keep)
                .with_context(|| format!("cannot make {} for the logs", keep.display()))?;
        }
        let process = Command::new("/bin/sh")
            .arg(&script)
            .args([id.as_ref(), folder.as_os_str()])
            .arg(keep_logs_in.unwrap_or(Path::new("")))
            .env_remove(crate::processes::LAB_VARIABLE)
            .current_dir("/")
            // Ctrl-C goes to the process group of the terminal, so it needs one of its own.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the guardian")?;
        Ok(Self { process })
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        match self.process.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("the lab's guardian could not remove everything: {status}"),
            Err(error) => eprintln!("the lab's guardian cannot be waited for: {error}"),
        }
    }
}
