//! The first packets of a PostgreSQL client, as the proxy reads them.
//!
//! Source: PostgreSQL documentation, "Frontend/Backend Protocol", sections "Start-up",
//! "SSL Session Encryption", "GSSAPI Session Encryption" and "Message Formats"; the limit is
//! `MAX_STARTUP_PACKET_LENGTH` of the server.
//!
//! Only the parts that the proxy needs are parsed. A startup packet of an unknown future protocol
//! is sent to the server unchanged.

use thiserror::Error;

/// The maximum length of a startup packet that a server accepts, in bytes, including its length
/// word. The server's limit of 10,000 does not count that word (`ProcessStartupPacket`).
pub const STARTUP_BYTES_MAX: usize = 10_000 + size_of::<u32>();

/// The first byte of a TLS handshake record, sent by a client without an SSLRequest.
const TLS_HANDSHAKE: u8 = 0x16;

/// A TLS record consists of its type, its version, its length in two bytes, and at most this many
/// bytes. Source: RFC 8446, section 5.1.
const TLS_HEADER_BYTES: usize = 5;
const TLS_RECORD_BYTES_MAX: usize = 1 << 14;

const LENGTH_AND_CODE: usize = 8;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
const MAJOR_VERSION: u32 = 3;

/// A whole SSLRequest.
pub const SSL_REQUEST_PACKET: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A cancel key is 4 bytes in protocol 3.0 and up to 256 in 3.2.
const CANCEL_KEY_BYTES_MAX: usize = 256;
const CANCEL_PID_BYTES: usize = 4;

/// The kind of a client's first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// The packet is incomplete: at least this many bytes in total are needed.
    Incomplete(usize),
    /// TLS without an SSLRequest (PostgreSQL 17 and later), and the whole first record of the
    /// client's hello. The proxy cannot read any of it.
    DirectTls,
    /// The client requests TLS. 8 bytes.
    SslRequest,
    /// The client requests GSSAPI encryption. 8 bytes.
    GssEncRequest,
    /// The client requests to cancel a query of another connection.
    Cancel {
        /// Process id and secret key, as the server sent them in BackendKeyData.
        key: CancelKey,
        /// Length of the whole packet in bytes.
        len: usize,
    },
    /// A login. The whole packet is `len` bytes long.
    Startup {
        /// Length of the whole packet in bytes.
        len: usize,
    },
}

/// Process id and secret key of a server process: 8 to 260 bytes, as in the packet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CancelKey(Box<[u8]>);

impl CancelKey {
    /// A key from the body of BackendKeyData or CancelRequest; none if it is too short or long.
    pub fn new(pid_and_secret: &[u8]) -> Option<CancelKey> {
        let secret = pid_and_secret.len().checked_sub(CANCEL_PID_BYTES)?;
        (1..=CANCEL_KEY_BYTES_MAX).contains(&secret).then(|| CancelKey(pid_and_secret.into()))
    }

    /// Process id and secret, as in the packet.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A whole CancelRequest with this key.
    pub fn to_request(&self) -> Vec<u8> {
        let len = LENGTH_AND_CODE + self.0.len();
        let mut packet = Vec::with_capacity(len);
        // At most 268 bytes, see `new`.
        packet.extend_from_slice(&u32::try_from(len).unwrap_or(0).to_be_bytes());
        packet.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        packet.extend_from_slice(&self.0);
        packet
    }
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CancelKey(secret)")
    }
}

/// The reason why first bytes are refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StartupError {
    /// The length word is out of bounds.
    #[error("the length of the startup packet is {0} bytes, allowed are 8 to {STARTUP_BYTES_MAX}")]
    Length(u32),
    /// A request code or protocol that PostgreSQL has never had.
    #[error("unsupported frontend protocol {}.{}: pgsteer passes on 3.x", .0 >> 16, .0 & 0xffff)]
    Protocol(u32),
    /// A CancelRequest with a key of a length that no server uses.
    #[error("a cancel request has a key of 1 to {CANCEL_KEY_BYTES_MAX} bytes, this one has {0}")]
    CancelKey(usize),
    /// Bytes of another protocol.
    #[error("the first bytes are not of a PostgreSQL client")]
    NotPostgres,
}

/// Parses a client's first bytes. Nothing is consumed; `bytes` may be longer than the packet.
///
/// # Errors
/// Bytes that can never become a packet that the proxy can handle.
pub fn first(bytes: &[u8]) -> Result<First, StartupError> {
    match bytes.first() {
        None => return Ok(First::Incomplete(1)),
        Some(&TLS_HANDSHAKE) => {
            return match hello_len(bytes) {
                Some(len) if len > TLS_HEADER_BYTES + TLS_RECORD_BYTES_MAX => {
                    Err(StartupError::NotPostgres)
                }
                Some(len) if bytes.len() < len => Ok(First::Incomplete(len)),
                Some(_) => Ok(First::DirectTls),
                None => Ok(First::Incomplete(TLS_HEADER_BYTES)),
            };
        }
        // The limit on the length requires the first two bytes to be zero.
        Some(0) => {}
        Some(_) => return Err(StartupError::NotPostgres),
    }
    let Some(length) = word(bytes, 0) else { return Ok(First::Incomplete(LENGTH_AND_CODE)) };
    let len = usize::try_from(length).unwrap_or(usize::MAX);
    if !(LENGTH_AND_CODE..=STARTUP_BYTES_MAX).contains(&len) {
        return Err(StartupError::Length(length));
    }
    let Some(code) = word(bytes, 4) else { return Ok(First::Incomplete(LENGTH_AND_CODE)) };
    match code {
        SSL_REQUEST if len == LENGTH_AND_CODE => Ok(First::SslRequest),
        GSSENC_REQUEST if len == LENGTH_AND_CODE => Ok(First::GssEncRequest),
        CANCEL_REQUEST => match bytes.get(LENGTH_AND_CODE..len) {
            None => Ok(First::Incomplete(len)),
            Some(body) => match CancelKey::new(body) {
                Some(key) => Ok(First::Cancel { key, len }),
                None => Err(StartupError::CancelKey(body.len().saturating_sub(CANCEL_PID_BYTES))),
            },
        },
        code if code >> 16 == MAJOR_VERSION && bytes.len() < len => Ok(First::Incomplete(len)),
        code if code >> 16 == MAJOR_VERSION => Ok(First::Startup { len }),
        code => Err(StartupError::Protocol(code)),
    }
}

/// Returns true if `bytes` contain the whole first record of a client's TLS hello, or are not TLS.
pub fn is_whole_hello(bytes: &[u8]) -> bool {
    match (bytes.first(), hello_len(bytes)) {
        (Some(&TLS_HANDSHAKE), Some(len)) => {
            bytes.len() >= len.min(TLS_HEADER_BYTES + TLS_RECORD_BYTES_MAX)
        }
        (first, None) => first.is_some_and(|first| *first != TLS_HANDSHAKE),
        (_, Some(_)) => true,
    }
}

/// The length of the first TLS record, from its header.
fn hello_len(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 2] = bytes.get(3..TLS_HEADER_BYTES)?.try_into().ok()?;
    Some(TLS_HEADER_BYTES + usize::from(u16::from_be_bytes(length)))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(word))
}

/// Returns the user and database of a startup packet, for log lines; either may be missing.
pub fn user_and_database(packet: &[u8]) -> (Option<&str>, Option<&str>) {
    let mut words = packet.get(LENGTH_AND_CODE..).unwrap_or_default().split(|byte| *byte == 0);
    let (mut user, mut database) = (None, None);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        match name {
            b"" => break,
            b"user" => user = std::str::from_utf8(value).ok(),
            b"database" => database = std::str::from_utf8(value).ok(),
            _ => {}
        }
    }
    (user, database)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut packet = u32::try_from(8 + body.len()).unwrap().to_be_bytes().to_vec();
        packet.extend_from_slice(&code.to_be_bytes());
        packet.extend_from_slice(body);
        packet
    }

    #[test]
    fn the_kinds_of_requests_are_distinguished() {
        assert_eq!(first(&SSL_REQUEST_PACKET), Ok(First::SslRequest));
        assert_eq!(first(&packet(GSSENC_REQUEST, b"")), Ok(First::GssEncRequest));
        assert_eq!(first(b"\x16\x03\x01\0\x02hi"), Ok(First::DirectTls));
        let startup = packet(196_608, b"user\0app\0database\0shop\0\0");
        assert_eq!(first(&startup), Ok(First::Startup { len: startup.len() }));
        assert_eq!(user_and_database(&startup), (Some("app"), Some("shop")));
    }

    #[test]
    fn a_hello_is_whole_with_its_first_record() {
        let hello = b"\x16\x03\x01\0\x02hi";
        for len in 0..hello.len() {
            let wanted = if len == 0 {
                1
            } else if len < 5 {
                5
            } else {
                7
            };
            assert_eq!(first(&hello[..len]), Ok(First::Incomplete(wanted)), "{len}");
            assert!(!is_whole_hello(&hello[..len]), "{len}");
        }
        assert!(is_whole_hello(hello) && is_whole_hello(b"\x16\x03\x01\0\x02hi there"));
        // The server refuses bytes that are not TLS.
        assert!(is_whole_hello(b"G"));
        assert_eq!(first(b"\x16\x03\x01\xff\xff"), Err(StartupError::NotPostgres));
    }

    #[test]
    fn a_greased_minor_version_passes() {
        for code in [196_610, (3 << 16) | 9999] {
            let startup = packet(code, b"user\0app\0\0");
            assert_eq!(first(&startup), Ok(First::Startup { len: startup.len() }));
        }
    }

    #[test]
    fn cancel_keys_of_4_and_of_32_bytes_come_back_as_they_went() {
        for secret_bytes in [4, 32, 256] {
            let body = vec![7; 4 + secret_bytes];
            let request = packet(CANCEL_REQUEST, &body);
            let Ok(First::Cancel { key, len }) = first(&request) else { panic!("no cancel") };
            assert_eq!(len, request.len());
            assert_eq!(key.to_request(), request);
        }
        assert!(first(&packet(CANCEL_REQUEST, &[0; 4])).is_err());
        assert!(first(&packet(CANCEL_REQUEST, &[0; 261])).is_err());
    }

    #[test]
    fn one_byte_at_a_time_gives_the_same_packet() {
        let startup = packet(196_608, b"user\0app\0\0");
        for len in 0..startup.len() {
            assert!(matches!(first(&startup[..len]), Ok(First::Incomplete(_))), "{len}");
        }
    }

    #[test]
    fn bytes_that_are_not_a_startup_packet_are_refused_at_the_first_wrong_byte() {
        assert_eq!(first(b"GET / HTTP/1.1\r\n"), Err(StartupError::NotPostgres));
        assert_eq!(first(&[0, 0, 0, 7]), Err(StartupError::Length(7)));
        assert_eq!(first(&[0, 0, 0x27, 0x15]), Err(StartupError::Length(10_005)));
        assert_eq!(first(&packet(2 << 16, b"")), Err(StartupError::Protocol(2 << 16)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_ask_for_more_than_the_limit(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            zeroes in 0_usize..3,
        ) {
            let mut input = vec![0; zeroes];
            input.extend(bytes);
            if let Ok(First::Incomplete(wanted)) = first(&input) {
                let most = STARTUP_BYTES_MAX.max(TLS_HEADER_BYTES + TLS_RECORD_BYTES_MAX);
                prop_assert!(wanted > input.len() && wanted <= most);
            }
            let _ = user_and_database(&input);
        }
    }
}
