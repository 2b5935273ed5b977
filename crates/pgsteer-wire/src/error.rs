//! ErrorResponse: builds pgsteer's errors for a client, and parses a server's.
//!
//! Sources: PostgreSQL documentation, "Error and Notice Message Fields" and "PostgreSQL Error
//! Codes".

use pgsteer_core::text::{clean, clean_to};

/// The maximum number of characters of one field of an error that pgsteer sends. libpq refuses a
/// message of more than 30,000 bytes before the login has ended.
const FIELD_CHARS_MAX: usize = 2_000;

/// SQLSTATEs that pgsteer uses or reads.
pub mod sqlstate {
    /// `cannot_connect_now`: the only SQLSTATE after which libpq tries its next host.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    /// `admin_shutdown`: the session was ended.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// `crash_shutdown`.
    pub const CRASH_SHUTDOWN: &str = "57P02";
    /// `too_many_connections`.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// `invalid_authorization_specification`.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// `invalid_password`.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// `protocol_violation`.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
}

/// The parts of an error that a client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// SQLSTATE, 5 characters.
    pub sqlstate: &'a str,
    /// The problem in one sentence.
    pub message: &'a str,
    /// The reason in full; empty for none.
    pub detail: &'a str,
    /// The remedy; empty for none.
    pub hint: &'a str,
}

impl ErrorFields<'_> {
    /// Builds the whole message as a server sends it, with severity FATAL. Each field is cleaned
    /// and limited to `FIELD_CHARS_MAX` characters.
    pub fn to_fatal(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(128 + self.message.len() + self.detail.len());
        let fields = [
            (b'S', "FATAL"),
            (b'V', "FATAL"),
            (b'C', self.sqlstate),
            (b'M', self.message),
            (b'D', self.detail),
            (b'H', self.hint),
        ];
        for (kind, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
            body.push(kind);
            // Cleaned text has no zero byte, which would end the field.
            body.extend(clean_to(text, FIELD_CHARS_MAX).bytes());
            body.push(0);
        }
        body.push(0);
        let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        let mut message = Vec::with_capacity(body.len() + 5);
        message.push(b'E');
        message.extend_from_slice(&len.to_be_bytes());
        message.append(&mut body);
        message
    }
}

/// Returns SQLSTATE and message of an ErrorResponse's body, cleaned; each is empty if it is
/// missing.
pub fn read_error(body: &[u8]) -> (String, String) {
    let field = |wanted: u8| {
        body.split(|byte| *byte == 0)
            .find_map(|field| field.strip_prefix(&[wanted]))
            .map(|text| clean(&String::from_utf8_lossy(text)).into_owned())
            .unwrap_or_default()
    };
    (field(b'C'), field(b'M'))
}

/// Returns true if the server refused because it has no free connection for any client. The
/// `CONNECTION LIMIT` of a user or of a database has the same SQLSTATE. The name of the reporting
/// function distinguishes them, because PostgreSQL does not translate it (src/backend/utils/init).
///
/// `messages` end with an ErrorResponse.
pub fn is_server_full(messages: &[u8]) -> bool {
    const OTHER_LIMITS: [&[u8]; 2] = [b"RInitializeSessionUserId", b"RCheckMyDatabase"];
    error_in(messages).is_some_and(|body| {
        let mut fields = body.split(|byte| *byte == 0);
        read_error(body).0 == sqlstate::TOO_MANY_CONNECTIONS
            && !fields.any(|field| OTHER_LIMITS.contains(&field))
    })
}

/// Returns the body of the ErrorResponse in `messages`.
fn error_in(messages: &[u8]) -> Option<&[u8]> {
    let mut rest = messages;
    while let [kind, a, b, c, d, ..] = *rest {
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let body = rest.get(5..len.saturating_add(1))?;
        if kind == b'E' {
            return Some(body);
        }
        rest = &rest[5 + body.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_server_is_distinguished_from_the_limit_of_a_database() {
        let full = b"E\0\0\0\x19C53300\0RInitProcess\0\0";
        let limit = b"E\0\0\0\x1dC53300\0RCheckMyDatabase\0\0";
        let behind = [b"R\0\0\0\x08\0\0\0\0", &full[..]].concat();
        assert!(is_server_full(full) && is_server_full(&behind));
        assert!(is_server_full(b"E\0\0\0\x0cC53300\0\0"), "a pooler names no function");
        assert!(!is_server_full(limit));
        assert!(!is_server_full(b"E\0\0\0\x0cC57P03\0\0"));
        for len in 0..behind.len() {
            assert!(!is_server_full(&behind[..len]), "{len}");
        }
        assert!(!is_server_full(&[b'E', 0, 0, 0, 0, 0]));
    }

    #[test]
    fn an_error_reads_back_as_it_was_written() {
        let fields = ErrorFields {
            sqlstate: sqlstate::CANNOT_CONNECT_NOW,
            message: "no primary",
            detail: "n1: down\0",
            hint: "",
        };
        let message = fields.to_fatal();
        assert_eq!(message[0], b'E');
        assert_eq!(
            u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize + 1,
            message.len()
        );
        assert_eq!(read_error(&message[5..]), ("57P03".to_owned(), "no primary".to_owned()));
    }
}
