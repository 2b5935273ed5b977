//! PostgreSQL's messages for HAProxy's `tcp-check`, in hex. (PostgreSQL manual, "Message Formats".)

use std::fmt::Write as _;

/// The name of the checks' sessions in `pg_stat_activity` and in the log.
const APPLICATION_NAME: &str = "haproxy-check";
const PROTOCOL_3_0: u32 = 196_608;

/// Queries the role; its answer is [`TAKES_WRITES`] or [`IN_RECOVERY`].
pub const QUESTION: &str = "select pg_is_in_recovery()";
/// AuthenticationOk: length 8, code 0.
pub const LET_IN: &str = "520000000800000000";
/// DataRow: length 11, one column, one byte, `f`.
pub const TAKES_WRITES: &str = "440000000b00010000000166";
/// The same with `t`.
pub const IN_RECOVERY: &str = "440000000b00010000000174";

/// Returns the startup packet of `user` to `dbname`.
pub fn startup(user: &str, dbname: &str) -> String {
    let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
    for text in ["user", user, "database", dbname, "application_name", APPLICATION_NAME] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    hex(&with_length(&body))
}

/// Returns a query and a Terminate. Both are sent together: the server closes after its answer, so
/// a wrong answer is detected at the end of the connection, and not after a timeout.
pub fn question_and_farewell() -> String {
    let mut query = QUESTION.as_bytes().to_vec();
    query.push(0);
    let parts = [b"Q".as_slice(), &with_length(&query), b"X", &with_length(&[])];
    hex(&parts.concat())
}

/// Adds the length, which includes itself.
fn with_length(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use pgsteer_config::limits::LOGIN_NAME_BYTES_MAX;
    use pgsteer_wire::startup::{First, first, user_and_database};

    fn bytes(hex: &str) -> Vec<u8> {
        let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(pair).collect()
    }

    #[test]
    fn the_query_and_the_farewell_have_the_lengths_of_the_manual() {
        let sent = bytes(&question_and_farewell());
        assert_eq!(&sent[..5], [b'Q', 0, 0, 0, 31]);
        assert_eq!(&sent[32..], [b'X', 0, 0, 0, 4]);
    }

    proptest! {
        /// The parser of startup packets is different code than the writer above.
        #[test]
        fn a_startup_packet_reads_back_for_any_name(user in name(), dbname in name()) {
            let packet = bytes(&startup(&user, &dbname));
            prop_assert_eq!(first(&packet), Ok(First::Startup { len: packet.len() }));
            prop_assert_eq!(user_and_database(&packet), (Some(&*user), Some(&*dbname)));
        }
    }

    fn name() -> impl Strategy<Value = String> {
        "[^\\x00]{1,63}".prop_filter("fits", |name| name.len() <= LOGIN_NAME_BYTES_MAX)
    }
}
