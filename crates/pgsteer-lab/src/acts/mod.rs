//! The acts on a lab. The error of each act names what failed.

mod by_patroni;
mod by_signal;
mod by_sql;
mod cable;
mod line;
mod reset;

pub use by_patroni::SwitchoverOrder;
pub use line::ACTS_HELP;
