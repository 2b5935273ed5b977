//! The program from the command line: wrong flags and files, taken ports, unexpected answers
//! instead of Patroni's. No cluster is needed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod check;
mod fake_patroni;
mod input;
mod lint;
mod pgsteer;
mod ports;
mod shipped;
mod strange;
mod terminal;
mod top;
mod unread;
mod upgrade;
