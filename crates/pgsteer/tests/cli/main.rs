//! The program as it is typed: wrong flags and files, taken ports, strange Patronis. No cluster needed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod check;
mod fake_patroni;
mod input;
mod lint;
mod pgsteer;
mod ports;
mod shipped;
mod strange;
mod unread;
