//! Messages of the PostgreSQL protocol, as bytes.

/// `ReadyForQuery` and all messages that a server sends before it: its parameters and the cancel
/// key.
pub fn burst(in_hot_standby: &str, key: &[u8]) -> Vec<u8> {
    [
        authentication(0, b""),
        parameter("in_hot_standby", in_hot_standby),
        parameter("server_version", "15.0"),
        message(b'K', key),
        ready(),
    ]
    .concat()
}

/// A message with its type and length.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// A request for authentication; code 0 means success.
pub fn authentication(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), rest].concat())
}

pub fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

pub fn fatal(sqlstate: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0\0").as_bytes())
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

/// A server's answer to a query without rows.
pub fn done() -> Vec<u8> {
    [message(b'C', b"SELECT 0\0"), ready()].concat()
}

/// A packet without a type, as clients send it first.
pub fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// The startup packet of user `app`, in protocol 3 with this minor version.
pub fn startup(minor: u32) -> Vec<u8> {
    packet((3 << 16) + minor, b"user\0app\0database\0shop\0\0")
}

pub fn ssl_request() -> Vec<u8> {
    packet(80_877_103, b"")
}

pub fn gssenc_request() -> Vec<u8> {
    packet(80_877_104, b"")
}

pub fn cancel_request(key: &[u8]) -> Vec<u8> {
    packet(80_877_102, key)
}
