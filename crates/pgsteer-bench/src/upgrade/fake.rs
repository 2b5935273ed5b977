//! A fake member: a PostgreSQL that accepts every login and answers every query at once, and its
//! Patroni. A real server with ten thousand sessions would need more memory than the measurement.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// AuthenticationOk and ReadyForQuery (PostgreSQL documentation, "Message Formats").
const BURST: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
/// CommandComplete and ReadyForQuery.
pub const ANSWER: &[u8] = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
/// A startup packet of protocol 3.0 with a user.
pub const STARTUP: &[u8] = b"\0\0\0\x14\0\x03\0\0user\0bench\0\0";
/// A Query message.
pub const QUERY: &[u8] = b"Q\0\0\0\x0dSELECT 1\0";
/// The length of the answer to a login.
pub const BURST_BYTES: usize = BURST.len();

/// Starts both on threads of their own. Returns the addresses of PostgreSQL and of Patroni.
pub fn start() -> Result<(SocketAddr, SocketAddr)> {
    let postgres = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    let patroni = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    let addresses = (postgres.local_addr()?, patroni.local_addr()?);
    postgres.set_nonblocking(true)?;
    std::thread::spawn(move || serve_postgres(postgres));
    std::thread::spawn(move || {
        for stream in patroni.incoming().flatten() {
            std::thread::spawn(move || answer_patroni(stream, addresses));
        }
    });
    Ok(addresses)
}

fn serve_postgres(listener: TcpListener) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer_client(stream));
        }
    })
}

async fn answer_client(mut stream: tokio::net::TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut startup = vec![0; STARTUP.len()];
    stream.read_exact(&mut startup).await?;
    stream.write_all(BURST).await?;
    let mut query = vec![0; QUERY.len()];
    while stream.read_exact(&mut query).await.is_ok() {
        stream.write_all(ANSWER).await?;
    }
    Ok(())
}

fn answer_patroni(
    mut stream: TcpStream,
    (postgres, patroni): (SocketAddr, SocketAddr),
) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    let request = lines.next().context("no request")?;
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let body = match request.contains("/cluster") {
        true => format!(
            r#"{{"scope": "bench", "members": [{{"name": "n1", "role": "leader", "state": "running",
                "timeline": 1, "api_url": "http://{patroni}/patroni", "host": "{}", "port": {}}}]}}"#,
            postgres.ip(),
            postgres.port()
        ),
        false => {
            r#"{"state": "running", "role": "primary", "server_version": 150018, "timeline": 1,
            "xlog": {"location": 50616344}, "database_system_identifier": "1",
            "patroni": {"version": "4.1.5", "scope": "bench", "name": "n1"}}"#
                .to_owned()
        }
    };
    let head = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n";
    Ok(stream.write_all(format!("{head}{body}").as_bytes())?)
}
