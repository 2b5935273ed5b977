//! The guardian: a small shell process that outlives the lab and removes all of it.
//!
//! All cleanup is in the guardian. When the lab ends, on purpose or by a kill, its end of a pipe
//! closes. The guardian handles both cases in the same way.

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
    /// Starts the guardian, before the lab makes anything else than the empty folder.
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
            // Ctrl-C signals the process group of the terminal, so the guardian needs its own
            // group.
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
