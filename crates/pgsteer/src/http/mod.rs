//! The HTTP output: status, metrics and health, read-only and open to whoever reaches the port.

mod compose;
pub mod document;
mod metrics;
#[cfg(test)]
pub mod sample;
mod stamp;
