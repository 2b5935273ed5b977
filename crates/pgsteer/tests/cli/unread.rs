//! A log that is not read.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::fake_patroni::FakePatroni;
use crate::pgsteer::{Running, own_address};

const PIPE_BYTES: usize = 4_096;
const FILLED_WITHIN: Duration = Duration::from_secs(60);
/// The number of reloads while the pipe is full.
const RELOADS: usize = 100;

#[test]
fn a_log_that_is_not_read_does_not_block_pgsteer() {
    let ip = own_address();
    let patroni = FakePatroni::of_primary(ip, SocketAddr::new(ip, 5432), Vec::new());
    let mut pgsteer = Running::start_unread(ip, PIPE_BYTES, &["--patroni", &patroni.url()]);
    // Equal lines are summarised, so a reload writes about five lines a second.
    let deadline = Instant::now() + FILLED_WITHIN;
    while !pgsteer.is_unread(PIPE_BYTES) {
        assert!(Instant::now() < deadline, "there is room for more of the log");
        pgsteer.reload();
        assert!(pgsteer.status().is_some());
    }
    for _ in 0..RELOADS {
        pgsteer.reload();
        assert!(pgsteer.status().is_some());
    }
    let began = Instant::now();
    assert_eq!(pgsteer.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "it ended after {:?}", began.elapsed());
}
