//! One bounded HTTP question: connect, ask, read the whole answer, close.
//!
//! Patroni speaks HTTP/1.0 and closes after each answer (Python's `BaseHTTPRequestHandler`),
//! so there is no connection to keep.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::http::uri::Scheme;
use hyper::{Request, Uri, Version};
use hyper_util::rt::TokioIo;
use pgsteer_core::claim::Failure;
use pgsteer_core::names::Endpoint;
use rustls::ClientConfig;
use tokio_rustls::TlsConnector;

use super::dial::{self, Transport};
use super::prompt::Prompt;
use crate::tls::{self, Trust};

/// The most bytes of an answer's body.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A base address, as `http://10.0.0.11:8008`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    url: Arc<str>,
    https: bool,
    endpoint: Endpoint,
    path: String,
}

/// Asks, within a limit.
pub struct Client {
    limit: Duration,
    /// Made from the configured files at the start; without files made of the system's trust
    /// store when the first `https` address is asked, because reading it costs time and memory.
    tls: OnceLock<Result<Arc<ClientConfig>, Arc<str>>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// When the request was sent.
    pub asked: Instant,
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

impl Base {
    /// Reads a base address. The port is the scheme's own unless named.
    ///
    /// # Errors
    /// A sentence on what is wrong with it. It does not repeat an address with a user in
    /// it, because a password may stand there too.
    pub fn parse(url: &str) -> Result<Base, String> {
        if url.contains('@') {
            return Err("an address must not name a user".to_owned());
        }
        let bad = |why: &str| format!("`{url}` is no address as http://10.0.0.11:8008: {why}");
        let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(bad("neither http nor https")),
        };
        let host = uri.host().ok_or_else(|| bad("no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let endpoint = Endpoint::new(host, port).map_err(|err| bad(&err.to_string()))?;
        Ok(Base {
            url: Arc::from(url.trim_end_matches('/')),
            https,
            endpoint,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The address as written, without a slash at the end.
    pub fn url(&self) -> &Arc<str> {
        &self.url
    }

    /// The host as written, without brackets.
    pub fn host(&self) -> &str {
        self.endpoint.host()
    }
}

impl Client {
    /// A client whose answers have to be complete within `limit`. `tls` is what the configured
    /// files say; none means the system's trust store, if it is ever needed.
    pub fn new(limit: Duration, tls: Option<Arc<ClientConfig>>) -> Client {
        let cell = OnceLock::new();
        if let Some(config) = tls {
            // A new cell is empty, so this cannot fail.
            let _ = cell.set(Ok(config));
        }
        Client { limit, tls: cell }
    }

    /// Asks for `path` below `base`. `known` are the addresses of its host, where somebody
    /// has resolved it already; else it is resolved here.
    pub async fn get(&self, base: &Base, known: &[IpAddr], path: &str) -> Result<Answer, Failure> {
        match tokio::time::timeout(self.limit, self.exchange(base, known, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(dial::timed_out(&base.url, self.limit)),
        }
    }

    async fn exchange(&self, base: &Base, known: &[IpAddr], path: &str) -> Result<Answer, Failure> {
        let transport = self.open(base, known).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|err| failure(&err, base))?;
        let request = Request::get(format!("{}{path}", base.path))
            .version(Version::HTTP_10)
            .header(HOST, base.endpoint.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|err| Failure::Malformed(Arc::from(format!("{}: {err}", base.url))))?;
        let asked = Instant::now();
        let answering = async {
            let response = sender.send_request(request).await.map_err(|err| failure(&err, base))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
            let body = body.collect().await.map_err(|err| cut_off(&*err, base))?;
            Ok(Answer { asked, status, body: body.to_bytes() })
        };
        drive(connection, answering).await
    }

    async fn open(&self, base: &Base, known: &[IpAddr]) -> Result<Box<dyn Transport>, Failure> {
        let resolved;
        let addresses = if known.is_empty() {
            resolved = dial::resolve(&base.endpoint).await?;
            &resolved
        } else {
            known
        };
        let port = base.endpoint.port();
        let stream = Prompt(dial::connect(addresses, port, &base.url, self.limit).await?);
        if !base.https {
            return Ok(Box::new(stream));
        }
        let refused =
            |err: &dyn std::fmt::Display| Failure::Tls(Arc::from(format!("{}: {err}", base.url)));
        let config = self.tls_config().map_err(|err| refused(&err))?;
        let name = tls::server_name(base.host()).map_err(|err| refused(&err))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|err| dial::failure(&err, &base.url))?;
        Ok(Box::new(stream))
    }

    fn tls_config(&self) -> Result<Arc<ClientConfig>, Arc<str>> {
        self.tls
            .get_or_init(|| {
                tls::client_config(Trust::System, None).map_err(|err| Arc::from(format!("{err:#}")))
            })
            .clone()
    }
}

/// Lets the connection work for as long as somebody waits for its answer. When the server
/// closes, the connection is done before the last bytes have been read from it.
async fn drive<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    answering: impl Future<Output = T>,
) -> T {
    let (mut connection, mut answering) = (pin!(connection), pin!(answering));
    let mut is_done = false;
    loop {
        tokio::select! {
            answer = &mut answering => return answer,
            // Its error reaches whoever waits for the answer as well.
            _ = &mut connection, if !is_done => is_done = true,
        }
    }
}

fn cut_off(err: &(dyn Error + Send + Sync + 'static), base: &Base) -> Failure {
    if err.is::<LengthLimitError>() {
        return Failure::TooLarge { peer: base.url.clone(), bytes_max: BODY_BYTES_MAX };
    }
    match err.downcast_ref::<hyper::Error>() {
        Some(err) => failure(err, base),
        None => Failure::Closed(base.url.clone()),
    }
}

fn failure(err: &hyper::Error, base: &Base) -> Failure {
    if let Some(io) = err.source().and_then(|inner| inner.downcast_ref::<io::Error>()) {
        return dial::failure(io, &base.url);
    }
    if err.is_incomplete_message() || err.is_closed() || err.is_canceled() {
        return Failure::Closed(base.url.clone());
    }
    not_patroni(base, &err.to_string())
}

/// Whoever answers there, it is not Patroni.
pub fn not_patroni(base: &Base, how: &str) -> Failure {
    Failure::Malformed(Arc::from(format!("{} answers, but not as Patroni does: {how}", base.url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_address_is_read_with_its_port_and_path() {
        for (url, endpoint, path) in [
            ("http://10.0.0.11:8008", "10.0.0.11:8008", ""),
            ("http://10.0.0.11:8008/", "10.0.0.11:8008", ""),
            ("https://[::1]:8008", "[::1]:8008", ""),
            ("http://pg-1", "pg-1:80", ""),
            ("https://gate.example/pg-1/", "gate.example:443", "/pg-1"),
        ] {
            let base = Base::parse(url).unwrap();
            assert_eq!((&*base.endpoint.to_string(), &*base.path), (endpoint, path));
        }
    }

    #[test]
    fn what_is_no_base_address_is_refused_and_a_password_in_it_is_not_repeated() {
        for url in ["", "pg-1:8008", "10.0.0.11", "ftp://pg-1", "http://", "http://a b", "/x"] {
            let why = Base::parse(url).unwrap_err();
            assert!(why.contains(&format!("`{url}`")), "{why}");
        }
        let why = Base::parse("http://admin:hunter2@pg-1:8008").unwrap_err();
        assert!(!why.contains("hunter2"), "{why}");
    }
}
