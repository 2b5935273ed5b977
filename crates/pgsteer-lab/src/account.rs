//! The unprivileged user that runs the members. PostgreSQL refuses to run as root.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

const USER_FOR_ROOT: &str = "postgres";

/// The user of this process, or `postgres` if this process runs as root.
#[derive(Debug, Clone)]
pub struct Account {
    switch_to: Option<Switch>,
}

#[derive(Debug, Clone)]
struct Switch {
    uid: u32,
    gid: u32,
}

impl Account {
    pub fn choose() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { switch_to: None });
        }
        Ok(Self { switch_to: Some(Switch { uid: ask_id("-u")?, gid: ask_id("-g")? }) })
    }

    pub fn is_root(&self) -> bool {
        self.switch_to.is_some()
    }

    /// The arguments to put before a command so that it runs as this account.
    pub fn prefix(&self) -> Vec<String> {
        if self.switch_to.is_none() {
            return Vec::new();
        }
        vec![
            "setpriv".to_owned(),
            format!("--reuid={USER_FOR_ROOT}"),
            format!("--regid={USER_FOR_ROOT}"),
            "--init-groups".to_owned(),
            "--".to_owned(),
        ]
    }

    pub fn own(&self, path: &Path) -> Result<()> {
        let Some(switch) = &self.switch_to else {
            return Ok(());
        };
        chown(path, Some(switch.uid), Some(switch.gid))
            .with_context(|| format!("cannot give {} to {USER_FOR_ROOT}", path.display()))
    }

    /// Fails if root may not read `/proc` of this account's processes. The lab finds its own
    /// processes by their environment in `/proc`, and root in a container often lacks the right to
    /// read it.
    pub fn check_sight(&self) -> Result<()> {
        if self.switch_to.is_none() {
            return Ok(());
        }
        let mut words = self.prefix();
        words.extend(["sleep".to_owned(), "5".to_owned()]);
        let mut child =
            Command::new(&words[0]).args(&words[1..]).spawn().context("cannot start setpriv")?;
        let environ = format!("/proc/{}/environ", child.id());
        let changed = || -> bool {
            std::fs::read_to_string(format!("/proc/{}/comm", child.id()))
                .is_ok_and(|comm| comm.trim() == "sleep")
        };
        let mut looks = 0;
        while !changed() && looks < 500 {
            looks += 1;
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let seen = std::fs::read(environ).is_ok();
        let _ = child.kill();
        let _ = child.wait();
        if !seen {
            bail!(
                "root may not look into processes of user {USER_FOR_ROOT} here (a container without \
                 CAP_SYS_PTRACE?); run the lab as an ordinary user, or give the container that right"
            );
        }
        Ok(())
    }
}

fn ask_id(flag: &str) -> Result<u32> {
    let output =
        Command::new("id").args([flag, USER_FOR_ROOT]).output().context("cannot run id")?;
    if !output.status.success() {
        bail!("there is no user {USER_FOR_ROOT}; run scripts/install-lab.sh");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("the output of id is not a number: {text:?}"))
}
