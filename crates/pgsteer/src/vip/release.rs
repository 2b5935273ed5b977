//! `pgsteer vip release`: removes the configured addresses from this machine, for systemd's
//! `ExecStopPost`: pgsteer itself cannot do it after a SIGKILL.

use std::io::{self, Write};
use std::process::ExitCode;

use super::VipConfigs;
use super::keeper::remove;

/// Removes the addresses, and prints what it did.
pub fn run(configs: &VipConfigs) -> ExitCode {
    let mut exit = ExitCode::SUCCESS;
    for (name, config) in configs {
        let line = match remove(config) {
            Ok(true) => format!("vip {name}: {config} is removed from {}", config.interface),
            Ok(false) => format!("vip {name}: {config} is not on {}", config.interface),
            Err(error) => {
                exit = ExitCode::FAILURE;
                format!("vip {name}: {error}")
            }
        };
        // A closed stdout is not an error.
        let _ = writeln!(io::stdout(), "{line}");
    }
    if configs.is_empty() {
        let _ = writeln!(io::stdout(), "there is no [vip] in the configuration");
    }
    exit
}
