//! The handover: a new process of pgsteer takes over from a running one, and no session notices.
//!
//! The old process starts the new one, with one end of a socket pair as its standard input; no other
//! process can connect to it. Each message is one packet of JSON, with the sockets that it names as
//! ancillary data (`SCM_RIGHTS`, unix(7)).
//!
//! 1. The old process sends an [`message::ToNew::Offer`]. The new one answers with an error if it
//!    cannot start, or reports which gates are open in its own Snapshot, at each change.
//! 2. When both have the same open gates, the old process sends the number of its connections, for the
//!    limits of `[proxy]`, and the listening sockets. From then on the new process accepts all clients, and
//!    answers that it does. If that answer does not come, the old process continues as before.
//! 3. Clients that wait and established sessions follow, then
//!    [`message::ToNew::SessionsLeft`]. Until then no session begins in the new process at a gate that
//!    has opened since step 2 (invariant 7), or in a service with a limit of sessions.
//! 4. A login in progress ends in the old process, and its session follows too. Its places are reserved in
//!    the new process. The old process then ends.

pub mod channel;
pub mod message;

/// The version of the messages. Processes with different versions refuse a handover.
pub const VERSION: u32 = 1;

/// The new process reports arrivals in steps of this, and the rest after
/// [`message::ToNew::SessionsLeft`].
pub const ARRIVALS_AT_ONCE: usize = 8;

/// The environment variable that makes a new process take over from its parent.
pub const VARIABLE: &str = "PGSTEER_HANDOVER";
