//! A fake PostgreSQL for tests: the server's side of the protocol, message by message.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use crate::sources::fake::{drip, server};

/// A message of the server: its tag, and the body after the length.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A request for authentication, or with code 0 its success.
pub fn authentication(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), rest].concat())
}

/// ParameterStatus.
pub fn status(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

/// ReadyForQuery.
pub fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// ErrorResponse.
pub fn error(severity: &str, sqlstate: &str, text: &str) -> Vec<u8> {
    let fields = format!("S{severity}\0V{severity}\0C{sqlstate}\0M{text}\0\0");
    message(b'E', fields.as_bytes())
}

/// DataRow of texts.
pub fn row(columns: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        body.extend(u32::try_from(column.len()).unwrap().to_be_bytes());
        body.extend(column.as_bytes());
    }
    message(b'D', &body)
}

/// All messages after a login: success, `parameters`, ReadyForQuery.
pub fn welcome(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = authentication(0, &[]);
    for (name, value) in parameters {
        bytes.extend(status(name, value));
    }
    bytes.extend(message(b'K', &[0; 8]));
    bytes.extend(ready());
    bytes
}

/// The answer to a query: one row of texts, and ReadyForQuery.
pub fn answer(columns: &[&str]) -> Vec<u8> {
    [message(b'T', &[0, 0]), row(columns), message(b'C', b"SELECT 1\0"), ready()].concat()
}

/// Reads a startup packet, without its length.
pub async fn read_startup(stream: &mut TcpStream) -> Vec<u8> {
    let length = stream.read_u32().await.unwrap_or(4);
    read(stream, length - 4).await
}

/// Reads a message of the client: its tag, 0 after the end of the connection, and its body.
pub async fn read_message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let Ok(tag) = stream.read_u8().await else { return (0, Vec::new()) };
    let length = stream.read_u32().await.unwrap_or(4);
    (tag, read(stream, length - 4).await)
}

async fn read(stream: &mut TcpStream, length: u32) -> Vec<u8> {
    let mut body = vec![0; usize::try_from(length).unwrap()];
    // A client that has disconnected leaves zeros.
    let _ = stream.read_exact(&mut body).await;
    body
}

/// Writes, and ignores a closed connection.
pub async fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
}

/// Sends nothing more, and keeps the connection open.
pub async fn forever(stream: TcpStream) {
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(stream);
}

/// A server that answers the startup packet with `answer` and closes.
pub async fn answering_login(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    server(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            read_startup(&mut stream).await;
            write(&mut stream, &answer).await;
        }
    })
    .await
}

/// Acts as a standby: accepts the login, and answers every Sync with `at_sync` of its number.
pub async fn standby(mut stream: TcpStream, at_sync: impl Fn(usize) -> Vec<u8>) {
    read_startup(&mut stream).await;
    write(&mut stream, &welcome(&[("in_hot_standby", "on"), ("server_version", "9.6")])).await;
    for number in 0.. {
        if read_message(&mut stream).await.0 != b'S' {
            return;
        }
        write(&mut stream, &at_sync(number)).await;
    }
}
