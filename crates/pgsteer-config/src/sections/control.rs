//! `[control]`: the socket for orders of an operator.

use std::path::PathBuf;

use pgsteer_core::settings::ControlConfig;

use crate::key::{Command, Flag, Key, SectionKeys};
use crate::kinds::Text;
use crate::plain;
use crate::written::Draft;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "The socket for orders of an operator (docs/ORDERS.md): `pgsteer drain`, `undrain`, \
           `sessions`, `end-sessions` and `explain`. The permissions of the socket decide who may give \
           them.",
    keys: &[&SOCKET, &MODE],
    at_restart: true,
};

/// The name of the section.
pub const SECTION: &str = "control";

/// The path of the socket.
pub static SOCKET: Key<Text<Option<PathBuf>>> = Key::new(
    SECTION,
    "socket",
    Text::new("path of a socket, or an empty text", plain::socket).unset(ControlConfig::SOCKET),
)
.example("\"/run/pgsteer/control.sock\"")
.help(
    "The Unix socket. \"\" switches it off, and orders of an earlier run are then ignored. `pgsteer \
     agent` has none unless it is set.",
)
.flags(&[Flag::new(Command::Both, "--control-socket", "PATH").help(
    "Unix socket for orders of an operator, or an empty text for none [default: \
     /run/pgsteer/control.sock, none for `pgsteer agent`]",
)]);

static MODE: Key<Text<u32>> =
    Key::new(SECTION, "mode", Text::new("permissions in octal digits", plain::mode).unset("0660"))
        .example("\"0660\"")
        .help("The permissions of the socket. Its owner and group are those of the process.");

/// Returns the settings of the section; none if the socket is switched off.
pub fn finish(draft: &Draft) -> Option<ControlConfig> {
    let usual = ControlConfig::default();
    Some(ControlConfig {
        socket: draft.get(&SOCKET).or(Some(usual.socket))?,
        mode: draft.get(&MODE).or(usual.mode),
    })
}
