//! The control socket: an operator gives orders to a running pgsteer, replaces it by a new process, and asks
//! about sessions and gates.
//!
//! It is a Unix socket, and its permissions decide who may use it; there is no such port. A client
//! sends one line of JSON and receives one line of JSON, so `nc -U` is a client too. HTTP would add headers,
//! paths and a second parser to the only interface that changes something, and nothing that is needed
//! here.
//!
//! `protocol` has the lines, `socket` the file, `server` the connections, `apply` carries out a request,
//! `replace` has the requests for a new process, `store` keeps the orders over a restart, `client` is the other side, and `commands` are the commands
//! of the command line that use it.

mod apply;
mod author;
mod call;
pub mod client;
pub mod commands;
pub mod protocol;
mod replace;
mod server;
mod socket;
mod store;
#[cfg(test)]
mod tests;

pub use self::apply::Desk;
pub use self::call::{Accepted, Call, Calls};
pub use self::replace::UpgradeRequest;
pub use self::server::Control;
pub use self::socket::ControlSocket;
pub use self::store::{OrderStore, parse as parse_orders, text as orders_text};
