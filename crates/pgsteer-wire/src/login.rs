//! The server's side of a login: which of its messages may go to the client, and when.
//!
//! Up to AuthenticationOk the server's messages are forwarded one by one. From there on its burst
//! (parameters, cancel key) is held back up to ReadyForQuery: it shows whether the server is in
//! recovery (`in_hot_standby`, PostgreSQL 14 and later), and it contains the cancel key. So a
//! client of the write service is never connected to a standby. A login that fails late can start
//! again at another member, as long as the client has received nothing that differs there.
//!
//! At a standby that is about to be promoted the burst may be held back for longer. The server
//! reports its promotion before the next ReadyForQuery, and a Sync makes it send one.
//!
//! Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Start-up", and "Message
//! Formats".

use std::ops::Range;

use thiserror::Error;

use super::error::read_error;
use super::startup::CancelKey;

/// The maximum that a server may send in a login, in bytes. PostgreSQL sends about 500.
pub const LOGIN_BYTES_MAX: usize = 65_536;

/// The maximum number of messages of a server in a login. PostgreSQL sends about 20.
pub const LOGIN_MESSAGES_MAX: usize = 1_000;

/// The maximum number of answers that a server may request in a login. SCRAM needs two, GSSAPI a
/// few.
pub const LOGIN_REQUESTS_MAX: usize = 32;

const HEADER_BYTES: usize = 5;
const AUTHENTICATION_OK: u32 = 0;
const AUTHENTICATION_CLEARTEXT: u32 = 3;
const AUTHENTICATION_SASL: u32 = 10;
const AUTHENTICATION_SASL_FINAL: u32 = 12;

/// A Sync. An idle server answers it with another ReadyForQuery.
pub const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];

/// The state of one login at one server.
#[derive(Debug, Default)]
pub struct LoginWatch {
    /// Bytes of the server that were not forwarded yet.
    inbox: Vec<u8>,
    /// How many bytes of `inbox` were examined.
    seen: usize,
    /// How many bytes of the server were forwarded.
    passed_on: usize,
    /// How many messages the server has sent.
    messages: usize,
    authenticated: bool,
    /// How many answers the server has requested from the client.
    requests: usize,
    /// The whole burst was complete before; only the answer to the newest Sync is missing.
    held_back: bool,
    in_hot_standby: Option<bool>,
    key: Option<CancelKey>,
}

/// The result of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The login is not complete. `forward` may go to the client now (often empty).
    Going {
        /// Whole messages of the authentication.
        forward: Vec<u8>,
    },
    /// The server refused the login. The client has received nothing of `raw`.
    Refused {
        /// SQLSTATE of its ErrorResponse.
        sqlstate: String,
        /// Its message.
        message: String,
        /// All its bytes that were not forwarded, the ErrorResponse last.
        raw: Vec<u8>,
    },
    /// The session is ready.
    Ready(Ready),
}

/// A completed login.
#[derive(Debug, PartialEq, Eq)]
pub struct Ready {
    /// All bytes that were held back, including any after ReadyForQuery.
    pub burst: Vec<u8>,
    /// The position of ReadyForQuery in the burst.
    pub ready_at: Range<usize>,
    /// The server's own report; none before PostgreSQL 14.
    pub in_hot_standby: Option<bool>,
    /// The key for cancelling queries of this session.
    pub key: Option<CancelKey>,
    /// How many messages the server has sent.
    messages: usize,
}

/// The reason why a server's bytes are not a login.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoginError {
    /// A message, or all of them together, exceed the limit.
    #[error("the server's answer to the login is longer than {LOGIN_BYTES_MAX} bytes")]
    TooLong,
    /// There are too many messages.
    #[error("the server sent more than {LOGIN_MESSAGES_MAX} messages in the login")]
    TooManyMessages,
    /// There are too many requests for authentication.
    #[error(
        "the server requested authentication more than {LOGIN_REQUESTS_MAX} times in the login"
    )]
    TooManyRequests,
    /// A message's length is smaller than the length word itself.
    #[error("the server's answer to the login is not of the PostgreSQL protocol")]
    Malformed,
    /// An answer to a request that the client cannot have sent yet, because it has to wait for its
    /// turn.
    #[error("the server answers a query that the client sent before the login was complete")]
    OutOfTurn,
}

/// Returns the length of the answer at the beginning of `said`, in bytes; none if it is not an
/// answer or is incomplete. All answers of a client in its login are messages of one kind
/// (PasswordMessage, SASLInitialResponse, SASLResponse, GSSResponse).
pub fn answer_len(answer: &[u8]) -> Option<usize> {
    let [b'p', len @ ..] = answer.get(..HEADER_BYTES)? else { return None };
    let len = u32::from_be_bytes(len.try_into().ok()?);
    let end = usize::try_from(len).ok()?.checked_add(1)?;
    (end >= HEADER_BYTES && end <= answer.len()).then_some(end)
}

impl Ready {
    /// Holds the burst back for longer, without its ReadyForQuery: the next one completes it. Also
    /// returns the bytes that the server has sent since, to be passed to [`LoginWatch::take`].
    pub fn hold_back(mut self) -> (LoginWatch, Vec<u8>) {
        let since = self.burst.split_off(self.ready_at.end);
        self.burst.truncate(self.ready_at.start);
        let watch = LoginWatch {
            inbox: self.burst,
            seen: self.ready_at.start,
            passed_on: 0,
            messages: self.messages,
            authenticated: true,
            requests: 0,
            held_back: true,
            in_hot_standby: self.in_hot_standby,
            key: self.key,
        };
        (watch, since)
    }
}

impl LoginWatch {
    /// Returns true if the server has accepted the client and requests nothing more of it.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Returns how many answers the server requested before it accepted the client.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Processes bytes of the server.
    ///
    /// # Errors
    /// A message that is too long or malformed, or more messages than a login has.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Progress, LoginError> {
        self.inbox.extend_from_slice(bytes);
        while let Some((kind, end)) = self.next_message()? {
            let body = self.seen + HEADER_BYTES..end;
            self.messages += 1;
            if self.messages > LOGIN_MESSAGES_MAX {
                return Err(LoginError::TooManyMessages);
            }
            match kind {
                b'R' if self.is_welcome(&body) => {
                    self.authenticated = true;
                    let forward = self.drain();
                    // AuthenticationOk itself is the first message that is held back.
                    self.seen = HEADER_BYTES + body.len();
                    if !forward.is_empty() {
                        return self.go_on(forward);
                    }
                    continue;
                }
                b'R' if self.is_request(&body) => self.count_request()?,
                b'S' => self.note_parameter(body),
                b'K' => self.key = CancelKey::new(&self.inbox[body]),
                b'E' => return Ok(self.refused(body)),
                b'Z' if self.authenticated => return Ok(Progress::Ready(self.ready(end))),
                // Notices and notifications may arrive at any time.
                b'N' | b'A' => {}
                _ if self.held_back => return Err(LoginError::OutOfTurn),
                _ => {}
            }
            self.seen = end;
        }
        if self.authenticated {
            return Ok(Progress::Going { forward: Vec::new() });
        }
        Ok(Progress::Going { forward: self.drain() })
    }

    /// Removes and returns all examined messages, to be forwarded.
    fn drain(&mut self) -> Vec<u8> {
        self.passed_on += self.seen;
        self.inbox.drain(..std::mem::take(&mut self.seen)).collect()
    }

    fn count_request(&mut self) -> Result<(), LoginError> {
        self.requests += 1;
        if self.requests > LOGIN_REQUESTS_MAX {
            return Err(LoginError::TooManyRequests);
        }
        Ok(())
    }

    /// The rest of `take` after a part of the bytes could be forwarded.
    fn go_on(&mut self, forward: Vec<u8>) -> Result<Progress, LoginError> {
        match self.take(&[])? {
            Progress::Going { .. } => Ok(Progress::Going { forward }),
            Progress::Refused { sqlstate, message, raw } => {
                Ok(Progress::Refused { sqlstate, message, raw: [forward, raw].concat() })
            }
            Progress::Ready(ready) => {
                let Range { start, end } = ready.ready_at;
                let ready_at = forward.len() + start..forward.len() + end;
                let burst = [forward, ready.burst].concat();
                Ok(Progress::Ready(Ready { burst, ready_at, ..ready }))
            }
        }
    }

    /// Returns kind and end of the next complete message.
    fn next_message(&self) -> Result<Option<(u8, usize)>, LoginError> {
        let Some(header) = self.inbox.get(self.seen..self.seen + HEADER_BYTES) else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len < 4 {
            return Err(LoginError::Malformed);
        }
        let end = self.seen.saturating_add(1).saturating_add(len);
        if end.saturating_add(self.passed_on) > LOGIN_BYTES_MAX {
            return Err(LoginError::TooLong);
        }
        Ok((self.inbox.len() >= end).then_some((header[0], end)))
    }

    fn is_request(&self, body: &Range<usize>) -> bool {
        !self.authenticated
            && auth_code(&self.inbox[body.clone()]) != Some(AUTHENTICATION_SASL_FINAL)
    }

    fn is_welcome(&self, body: &Range<usize>) -> bool {
        !self.authenticated && auth_code(&self.inbox[body.clone()]) == Some(AUTHENTICATION_OK)
    }

    fn note_parameter(&mut self, body: Range<usize>) {
        let mut words = self.inbox[body].split(|byte| *byte == 0);
        if words.next() == Some(b"in_hot_standby") {
            self.in_hot_standby = words.next().map(|value| value == b"on");
        }
    }

    fn refused(&mut self, body: Range<usize>) -> Progress {
        let (sqlstate, message) = read_error(&self.inbox[body]);
        Progress::Refused { sqlstate, message, raw: std::mem::take(&mut self.inbox) }
    }

    fn ready(&mut self, end: usize) -> Ready {
        Ready {
            burst: std::mem::take(&mut self.inbox),
            ready_at: self.seen..end,
            in_hot_standby: self.in_hot_standby,
            key: self.key.take(),
            messages: self.messages,
        }
    }
}

/// Returns true if every server answers the same startup packet with these same bytes. A client
/// that has received nothing else can be moved to another member in the middle of its login.
///
/// This is true for the list of SASL mechanisms and for the request of a cleartext password. A salt
/// or a nonce differs on each server.
pub fn is_repeatable(forwarded: &[u8]) -> bool {
    let mut rest = forwarded;
    while let Some((header, tail)) = rest.split_at_checked(HEADER_BYTES) {
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let body_len = usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(4);
        let Some((body, tail)) = tail.split_at_checked(body_len) else { return false };
        let repeatable = match header[0] {
            b'R' => matches!(auth_code(body), Some(AUTHENTICATION_SASL | AUTHENTICATION_CLEARTEXT)),
            // NegotiateProtocolVersion depends on the server's version only.
            b'v' => true,
            _ => false,
        };
        if !repeatable {
            return false;
        }
        rest = tail;
    }
    rest.is_empty()
}

fn auth_code(body: &[u8]) -> Option<u32> {
    body.first_chunk().map(|code| u32::from_be_bytes(*code))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    fn sasl() -> Vec<u8> {
        message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")
    }

    fn burst(in_hot_standby: &str) -> Vec<u8> {
        [
            message(b'R', &[0; 4]),
            message(b'S', format!("in_hot_standby\0{in_hot_standby}\0").as_bytes()),
            message(b'K', &[1, 2, 3, 4, 5, 6, 7, 8]),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    #[test]
    fn the_burst_is_held_back_and_read() {
        let Progress::Ready(ready) = LoginWatch::default().take(&burst("on")).unwrap() else {
            panic!("not ready");
        };
        assert_eq!(ready.in_hot_standby, Some(true));
        assert_eq!(ready.key, CancelKey::new(&[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(ready.burst, burst("on"));
    }

    #[test]
    fn authentication_goes_through_before_the_burst_is_held() {
        let mut watch = LoginWatch::default();
        assert_eq!(watch.take(&sasl()), Ok(Progress::Going { forward: sasl() }));
        let last = message(b'R', b"\0\0\0\x0cv=signature");
        let (head, tail) = (burst("off"), [last.clone(), message(b'R', &[0; 4])].concat());
        assert_eq!(watch.take(&tail), Ok(Progress::Going { forward: last }));
        let rest = &head[9..];
        let Ok(Progress::Ready(ready)) = watch.take(rest) else { panic!("not ready") };
        assert_eq!(ready.burst, burst("off"));
        assert_eq!(ready.in_hot_standby, Some(false));
    }

    fn logged_in(watch: &mut LoginWatch, sent: &[u8]) -> Ready {
        match watch.take(sent) {
            Ok(Progress::Ready(ready)) => ready,
            other => panic!("not ready: {other:?}"),
        }
    }

    fn promoted() -> Vec<u8> {
        message(b'S', b"in_hot_standby\0off\0")
    }

    #[test]
    fn a_burst_that_is_held_back_ends_with_the_newest_role_report() {
        let last = message(b'R', b"\0\0\0\x0cv=signature");
        let sent = [last, burst("on")].concat();
        let ready = logged_in(&mut LoginWatch::default(), &sent);
        assert_eq!(ready.burst[ready.ready_at.clone()], message(b'Z', b"I"));
        let (mut watch, since) = ready.hold_back();
        assert!(since.is_empty());
        let notice = message(b'N', b"SNOTICE\0\0");
        assert_eq!(watch.take(&notice), Ok(Progress::Going { forward: Vec::new() }));
        let ready = logged_in(&mut watch, &[promoted(), message(b'Z', b"I")].concat());
        assert_eq!(ready.in_hot_standby, Some(false));
        assert_eq!(ready.key, CancelKey::new(&[1, 2, 3, 4, 5, 6, 7, 8]));
        let without_ready = &sent[..sent.len() - 6];
        assert_eq!(ready.burst, [without_ready, &notice, &promoted(), b"Z\0\0\0\x05I"].concat());
    }

    #[test]
    fn without_a_new_report_the_role_of_the_login_stays() {
        for (word, expected) in [("on", true), ("off", false)] {
            let ready = logged_in(&mut LoginWatch::default(), &burst(word));
            let ready = logged_in(&mut ready.hold_back().0, &message(b'Z', b"I"));
            assert_eq!((ready.in_hot_standby, ready.burst), (Some(expected), burst(word)));
        }
    }

    #[test]
    fn a_burst_is_not_held_back_before_a_client_that_does_not_wait_for_it() {
        let answer = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
        let talked = [burst("on"), answer.clone()].concat();
        let (mut watch, since) = logged_in(&mut LoginWatch::default(), &talked).hold_back();
        assert_eq!(since, answer);
        assert_eq!(watch.take(&since), Err(LoginError::OutOfTurn));
    }

    #[test]
    fn a_server_that_stops_before_its_promotion_is_reported() {
        let ready = logged_in(&mut LoginWatch::default(), &burst("on"));
        let fatal = message(b'E', b"SFATAL\0C57P01\0Mterminating\0\0");
        let progress = ready.hold_back().0.take(&fatal);
        let Ok(Progress::Refused { sqlstate, .. }) = progress else { panic!("{progress:?}") };
        assert_eq!(sqlstate, "57P01");
    }

    #[test]
    fn an_error_after_authentication_is_not_passed_on_by_itself() {
        let error = message(b'E', b"SFATAL\0C57P01\0Mterminating\0\0");
        let sent = [message(b'R', &[0; 4]), error].concat();
        let expected = Progress::Refused {
            sqlstate: "57P01".to_owned(),
            message: "terminating".to_owned(),
            raw: sent.clone(),
        };
        assert_eq!(LoginWatch::default().take(&sent), Ok(expected));
    }

    #[test]
    fn only_messages_that_are_equal_on_every_server_are_repeatable() {
        assert!(is_repeatable(&[]));
        assert!(is_repeatable(&sasl()));
        assert!(is_repeatable(&message(b'R', &[0, 0, 0, 3])));
        assert!(!is_repeatable(&message(b'R', b"\0\0\0\x05salt")));
        assert!(!is_repeatable(&[sasl(), message(b'R', b"\0\0\0\x0br=nonce")].concat()));
        assert!(!is_repeatable(b"R\0\0"));
    }

    #[test]
    fn an_endless_message_is_refused_before_it_is_read() {
        let endless = [b'S', 0x7f, 0, 0, 0];
        assert_eq!(LoginWatch::default().take(&endless), Err(LoginError::TooLong));
        assert_eq!(LoginWatch::default().take(&[b'S', 0, 0, 0, 3]), Err(LoginError::Malformed));
    }

    /// Returns the bytes that the client received before the error, and the error.
    fn endless(message: &[u8], in_one_piece: usize) -> (usize, LoginError) {
        let (mut watch, mut forwarded) = (LoginWatch::default(), 0);
        let chunk = message.repeat(in_one_piece);
        loop {
            match watch.take(&chunk) {
                Ok(Progress::Going { forward }) => forwarded += forward.len(),
                Ok(other) => panic!("{other:?}"),
                Err(error) => return (forwarded, error),
            }
            assert!(forwarded <= LOGIN_BYTES_MAX);
        }
    }

    #[test]
    fn no_kind_of_message_may_come_without_end() {
        let long = message(b'N', &[b'x'; 30_000]);
        let (negotiation, parameter) = (message(b'v', &[0; 8]), message(b'S', b"a\0b\0"));
        for in_one_piece in [1, 7, 5_000] {
            assert_eq!(endless(&long, in_one_piece.min(2)).1, LoginError::TooLong);
            for short in [&message(b'N', b"\0"), &message(b'A', b""), &negotiation, &parameter] {
                assert_eq!(endless(short, in_one_piece).1, LoginError::TooManyMessages);
            }
            for request in [sasl(), message(b'R', &[0, 0, 0, 3]), message(b'R', b"")] {
                assert_eq!(endless(&request, in_one_piece).1, LoginError::TooManyRequests);
            }
            let last = message(b'R', b"\0\0\0\x0cv=signature");
            assert_eq!(endless(&last, in_one_piece).1, LoginError::TooManyMessages);
            let welcome = message(b'R', &[0; 4]);
            assert_eq!(endless(&welcome, in_one_piece).1, LoginError::TooManyMessages);
        }
    }

    #[test]
    fn a_burst_that_is_held_back_may_not_grow_without_end() {
        for (notice, expected) in [
            (message(b'N', b"\0"), LoginError::TooManyMessages),
            (message(b'S', &[b'x'; 10_000]), LoginError::TooLong),
        ] {
            let ready = logged_in(&mut LoginWatch::default(), &burst("on"));
            let mut watch = ready.hold_back().0;
            let error = (0..=LOGIN_MESSAGES_MAX).find_map(|_| watch.take(&notice).err());
            assert_eq!(error, Some(expected));
        }
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_client_gets_the_same(
            cuts in proptest::collection::vec(1_usize..20, 1..40),
        ) {
            let sent = [sasl(), message(b'R', b"\0\0\0\x0cv=x"), burst("off")].concat();
            let mut watch = LoginWatch::default();
            let (mut got, mut rest) = (Vec::new(), &sent[..]);
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (chunk, tail) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                rest = tail;
                match watch.take(chunk).unwrap() {
                    Progress::Going { forward } => got.extend(forward),
                    Progress::Ready(ready) => got.extend(ready.burst),
                    Progress::Refused { .. } => prop_assert!(false, "refused"),
                }
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LoginWatch::default().take(&bytes);
            let _ = is_repeatable(&bytes);
        }
    }
}
