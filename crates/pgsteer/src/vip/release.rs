//! `pgsteer vip release`: removes the addresses that pgsteer added from this machine, for systemd's
//! `ExecStopPost`: pgsteer itself cannot do it after a SIGKILL.
//!
//! It reads no configuration, which may be different or invalid by then. The kernel keeps with each address
//! that pgsteer added it.

use std::io::{self, Write};
use std::process::ExitCode;

use super::interface;
use super::keeper::explained;
use super::kernel::{self, Found};

/// Removes the addresses, and prints what it did.
pub fn run() -> ExitCode {
    let all = match kernel::addresses() {
        Ok(all) => all,
        Err(error) => {
            say(&explained(&error, "cannot read the addresses of this machine"));
            return ExitCode::FAILURE;
        }
    };
    let ours: Vec<Found> = all.into_iter().filter(|found| found.is_ours).collect();
    let mut exit = ExitCode::SUCCESS;
    for found in &ours {
        let text = format!("{}/{}", found.address, found.prefix);
        let interface = interface::name_of(found.index);
        match kernel::remove(found) {
            Ok(()) => say(&format!("{text} is removed from {interface}")),
            Err(error) => {
                exit = ExitCode::FAILURE;
                say(&explained(&error, &format!("cannot remove {text} from {interface}")));
            }
        }
    }
    if ours.is_empty() {
        say("this machine has no address that pgsteer added");
    }
    exit
}

/// Prints a line. A closed stdout is not an error.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
