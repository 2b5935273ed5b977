//! The settings of the control socket, by which an operator gives orders.

use std::path::PathBuf;

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// The path of the Unix socket.
    pub socket: PathBuf,
    /// The permissions of the socket, as `0o660`.
    pub mode: u32,
}

impl ControlConfig {
    /// The default path of the socket.
    pub const SOCKET: &'static str = "/run/pgsteer/control.sock";

    /// The default permissions of the socket: its owner and its group.
    pub const MODE: u32 = 0o660;
}

impl Default for ControlConfig {
    fn default() -> ControlConfig {
        ControlConfig { socket: PathBuf::from(ControlConfig::SOCKET), mode: ControlConfig::MODE }
    }
}
