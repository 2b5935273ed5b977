//! The connection between the two processes of a handover: packets of bytes, with file descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::{sleep, timeout};

/// The maximum size of a packet. A session has at most 64 KB of unsent bytes in each direction, which
/// take a third more as text.
pub const PACKET_BYTES_MAX: usize = 256 * 1024;

/// The maximum number of file descriptors in a packet: the listening sockets of all services. The
/// kernel permits 253.
pub const FILES_MAX: usize = 64;

/// The time limit for one packet. The other process reads all the time, so a full socket means that it
/// stands still.
pub const SEND_LIMIT: Duration = Duration::from_secs(5);

/// The pause after the kernel has refused a packet because too many file descriptors are on their way
/// (`ETOOMANYREFS`, unix(7)).
const REFUSED_PAUSE: Duration = Duration::from_millis(2);

/// One end of the connection. It is a socket of type SEQPACKET, which keeps packets apart and reports the
/// end of the other process; tokio waits for it as for a datagram socket.
#[derive(Debug)]
pub struct Channel {
    end: UnixDatagram,
    /// Where packets are received. Each one is copied out of it, because most are small.
    buffer: Mutex<Box<[u8]>>,
}

/// A packet that was received.
#[derive(Debug)]
pub struct Packet {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The file descriptors.
    pub files: Vec<OwnedFd>,
    /// The kernel has dropped bytes or file descriptors, for example because too many files are open.
    pub is_cut: bool,
}

/// Both ends of a new connection. They are closed in programs that the process starts.
///
/// # Errors
/// The kernel refuses it.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&one, &other] {
        // The kernel limits this to net.core.wmem_max, which is close to it by default.
        SockRef::from(end).set_send_buffer_size(4 * PACKET_BYTES_MAX)?;
    }
    Ok((one, other))
}

impl Channel {
    /// Uses this end on the current runtime.
    ///
    /// # Errors
    /// It is not a socket that the runtime can wait for.
    pub fn new(end: OwnedFd) -> io::Result<Channel> {
        let end = std::os::unix::net::UnixDatagram::from(end);
        end.set_nonblocking(true)?;
        let buffer = Mutex::new(vec![0; PACKET_BYTES_MAX].into_boxed_slice());
        Ok(Channel { end: UnixDatagram::from_std(end)?, buffer })
    }

    /// Returns the end, for another runtime.
    ///
    /// # Errors
    /// The current runtime does not release it.
    pub fn into_end(self) -> io::Result<OwnedFd> {
        Ok(self.end.into_std()?.into())
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// The other process has gone, or does not read within [`SEND_LIMIT`].
    pub async fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the other process does not read");
        timeout(SEND_LIMIT, self.send_at_once(bytes, files)).await.map_err(|_| late())?
    }

    async fn send_at_once(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let sending = || Ok(send(self.end.as_fd(), bytes, files)?);
            match self.end.async_io(Interest::WRITABLE, sending).await {
                Err(error) if is_for_later(&error) => sleep(REFUSED_PAUSE).await,
                sent => return sent,
            }
        }
    }

    /// Receives the next packet; none if the other process has closed its end. Safe to cancel.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn receive(&self) -> io::Result<Option<Packet>> {
        let receiving = || {
            let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(receive(self.end.as_fd(), &mut buffer)?)
        };
        match self.end.async_io(Interest::READABLE, receiving).await {
            // The other process has left packets unread. Its own packets can still be read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.end.async_io(Interest::READABLE, receiving).await
            }
            received => received,
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::INTR))
}

fn send(end: BorrowedFd<'_>, bytes: &[u8], files: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if files.len() > FILES_MAX {
        return Err(Errno::MSGSIZE);
    }
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Errno::MSGSIZE);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(end, &[IoSlice::new(bytes)], &mut ancillary, flags).map(drop)
}

fn receive(end: BorrowedFd<'_>, buffer: &mut [u8]) -> rustix::io::Result<Option<Packet>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(end, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let files: Vec<OwnedFd> = rights.flatten().collect();
    let is_cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    let bytes = buffer.get(..received.bytes).unwrap_or_default().to_vec();
    Ok((!bytes.is_empty()).then_some(Packet { bytes, files, is_cut }))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    fn channels() -> (Channel, Channel) {
        let (one, other) = pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[tokio::test]
    async fn a_packet_arrives_whole_with_its_files() {
        let (old, new) = channels();
        let (mut read, write) = io::pipe().unwrap();
        let largest = vec![7; 200 * 1024];
        old.send(&largest, &[write.as_fd()]).await.unwrap();
        drop(write);
        let Packet { bytes, mut files, is_cut } = new.receive().await.unwrap().unwrap();
        assert_eq!((bytes, files.len(), is_cut), (largest, 1, false));
        File::from(files.remove(0)).write_all(b"through").unwrap();
        let mut through = String::new();
        read.read_to_string(&mut through).unwrap();
        assert_eq!(through, "through");
        drop(old);
        assert!(new.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_last_packet_of_a_process_that_has_read_nothing_arrives() {
        let (old, new) = channels();
        old.send(b"unread", &[]).await.unwrap();
        new.send(b"why", &[]).await.unwrap();
        drop(new);
        assert_eq!(old.receive().await.unwrap().unwrap().bytes, b"why");
        assert!(old.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn more_files_than_agreed_are_refused() {
        let (old, _new) = channels();
        let file = File::open("/dev/null").unwrap();
        let mut many = vec![file.as_fd(); FILES_MAX + 1];
        assert!(old.send(b"x", &many).await.is_err());
        many.pop();
        old.send(b"x", &many).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stands_still_is_not_waited_for() {
        let (old, _new) = channels();
        let error = loop {
            if let Err(error) = old.send(&[0; 1024], &[]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
