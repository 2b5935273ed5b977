//! Requests to the kernel through rtnetlink.
//!
//! Each request opens a socket of its own, and waits for each answer of the kernel for [`ANSWER_TIMEOUT`]
//! at most: another program may hold the kernel's lock of the network settings.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

/// How long the kernel may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The size of the buffer for answers, in bytes; the kernel sends at most this much at once.
const ANSWER_BYTES_MAX: usize = 32 * 1024;

/// How often a list is read that changes while the kernel sends it.
const READS_MAX: u32 = 8;

/// What the answers of the kernel have shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// The last answer has arrived.
    is_done: bool,
    /// The list changed while the kernel sent it, so that entries may be missing.
    is_torn: bool,
}

/// Sends a request that changes something, and waits until the kernel acknowledges it.
///
/// # Errors
/// The kernel refuses, or does not answer.
pub fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    exchange(message, flags, |_| {}).map(|_| ())
}

/// Returns all entries of a list. A list that changes while the kernel sends it is read again.
///
/// # Errors
/// The kernel refuses, does not answer, or the list changes each time.
pub fn list(message: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    whole(|| {
        let mut entries = Vec::new();
        let progress = exchange(message.clone(), NLM_F_DUMP, |entry| entries.push(entry))?;
        Ok((entries, progress))
    })
}

/// Reads until a list is whole, [`READS_MAX`] times at most.
fn whole<T>(mut read: impl FnMut() -> io::Result<(T, Progress)>) -> io::Result<T> {
    for _ in 0..READS_MAX {
        let (entries, progress) = read()?;
        if !progress.is_torn {
            return Ok(entries);
        }
    }
    Err(io::Error::other(format!(
        "the kernel's list changed during each of {READS_MAX} attempts to read it"
    )))
}

/// Sends a request and reads the answers until the last one.
fn exchange(
    message: RouteNetlinkMessage,
    flags: u16,
    mut on_answer: impl FnMut(RouteNetlinkMessage),
) -> io::Result<Progress> {
    let socket = open()?;
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    send(&socket, &bytes, SendFlags::empty())?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    let mut progress = Progress::default();
    loop {
        let received = match recv(&socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, received)) => received.min(buffer.len()),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                let why = "the kernel does not answer a request about addresses within 2 s";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(error) => return Err(error.into()),
        };
        read(&buffer[..received], &mut progress, &mut on_answer)?;
        if progress.is_done {
            return Ok(progress);
        }
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads the answers in one datagram.
fn read(
    datagram: &[u8],
    progress: &mut Progress,
    on_answer: &mut impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut rest = datagram;
    while !rest.is_empty() && !progress.is_done {
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
        let answer = answer.map_err(|error| io::Error::other(error.to_string()))?;
        let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
        progress.is_torn |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            // The end of a list has a negative error code if the kernel could not send all of it.
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
            }
            NetlinkPayload::Done(_) => progress.is_done = true,
            NetlinkPayload::Error(error) if error.code.is_none() => progress.is_done = true,
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(answer) => on_answer(answer),
            _ => {}
        }
        // Each message begins at a multiple of four bytes.
        rest = rest.get(length.max(1).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket_with(
        rustix::net::AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // Protocol 0 is NETLINK_ROUTE.
        None,
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a list as the kernel sends it: the head with `flags`, then the error code.
    fn end(flags: u16, code: i32) -> Vec<u8> {
        const NLMSG_DONE: u16 = 3;
        let mut bytes = 20_u32.to_ne_bytes().to_vec();
        bytes.extend(NLMSG_DONE.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes
    }

    fn progress_of(datagram: &[u8]) -> io::Result<Progress> {
        let mut progress = Progress::default();
        read(datagram, &mut progress, &mut |_| {})?;
        Ok(progress)
    }

    #[test]
    fn a_list_that_changed_while_it_was_read_is_torn_and_one_with_an_error_at_its_end_fails() {
        let whole = Progress { is_done: true, is_torn: false };
        assert_eq!(progress_of(&end(0, 0)).unwrap(), whole);
        let torn = Progress { is_done: true, is_torn: true };
        assert_eq!(progress_of(&end(NLM_F_DUMP_INTR, 0)).unwrap(), torn);
        let code = Errno::NOBUFS.raw_os_error();
        assert_eq!(progress_of(&end(0, -code)).unwrap_err().raw_os_error(), Some(code));
    }

    #[test]
    fn a_torn_list_is_read_again_a_limited_number_of_times() {
        let torn = Progress { is_done: true, is_torn: true };
        let whole_one = Progress { is_done: true, is_torn: false };
        let mut reads = 0;
        let entries = whole(|| {
            reads += 1;
            Ok((reads, if reads < 3 { torn } else { whole_one }))
        });
        assert_eq!(entries.unwrap(), 3);
        let mut reads = 0;
        let failed = whole(|| {
            reads += 1;
            Ok(((), torn))
        });
        assert!(failed.is_err());
        assert_eq!(reads, READS_MAX);
    }
}
