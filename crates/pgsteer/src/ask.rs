//! The HTTP client of the commands: one bounded request to a running pgsteer.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use pgsteer_core::settings::Verify;
use pgsteer_core::text::clean;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::diagnostic::Diagnostic;
use crate::dial;
use crate::secret::Secret;
use crate::tls::{self, Trust};

/// The maximum size of an answer. The document of a hundred members has a tenth of it.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The maximum size of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The remedy for a failed request.
const REMEDY: &str = "check that `pgsteer run` is up there, and that this is the address of its \
                      --http; write another one as http://HOST:PORT";

/// The address of a pgsteer's pages, and how it is asked.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    port: u16,
    /// Host and port for the Host header.
    authority: String,
    /// The prefix of every path.
    base: String,
    /// The certificates that are accepted; none for plain HTTP.
    tls: Option<Arc<ClientConfig>>,
    authorization: Option<HeaderValue>,
}

/// The login at a pgsteer, and the certificates that are accepted.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The file whose first line is the token.
    pub token_file: Option<PathBuf>,
    /// The file whose first line is `user:password`.
    pub login_file: Option<PathBuf>,
    /// The PEM file of the authorities; the default are those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Credentials {
    /// The value of the Authorization header; none without a file.
    fn authorization(&self) -> Result<Option<HeaderValue>> {
        let text = match (&self.token_file, &self.login_file) {
            (Some(file), _) => format!("Bearer {}", Secret::read(file)?.expose()),
            (None, Some(file)) => {
                format!("Basic {}", STANDARD.encode(Secret::read(file)?.expose()))
            }
            (None, None) => return Ok(None),
        };
        let file = self.token_file.as_ref().or(self.login_file.as_ref());
        let file = file.map(|file| file.display().to_string()).unwrap_or_default();
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            anyhow!("{file}: its first line has characters that HTTP does not allow")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>> {
        let trust = Trust { verify: Verify::Full, ca_file: self.ca_file.as_deref() };
        tls::client_config(trust, None)
    }
}

/// The answer of a page.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Target {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`, the scheme being optional.
    ///
    /// # Errors
    /// The reason in one sentence. An address with a user name is not repeated, because it may contain a
    /// password too. Or a file of `credentials` cannot be used; the message names it.
    pub fn parse(url: &str, credentials: &Credentials) -> Result<Target> {
        ensure!(!url.contains('@'), "the address of a pgsteer must not name a user");
        let whole = match url.contains("://") {
            true => url.to_owned(),
            false => format!("http://{url}"),
        };
        let bad = |why: &str| anyhow!("`{url}` is not an address such as http://HOST:PORT: {why}");
        let uri: Uri = whole.parse().map_err(|_| match whole.contains("[") {
            false if whole.matches(':').count() > 2 => {
                bad("an IPv6 address needs brackets: http://[::1]:7000")
            }
            _ => bad("it is not a URL"),
        })?;
        let (usual_port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => (443, Some(credentials.tls()?)),
            _ => return Err(bad("the scheme is http or https")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Some(usual_port),
            Some(port) => port.strip_prefix(':').and_then(|digits| digits.parse().ok()),
            None => None,
        };
        let port = port.filter(|port| *port != 0);
        Ok(Target {
            host: host.to_owned(),
            port: port.ok_or_else(|| bad("the port is not a number from 1 to 65535"))?,
            authority: authority.to_string(),
            base: uri.path().trim_end_matches('/').to_owned(),
            tls,
            authorization: credentials.authorization()?,
        })
    }

    /// Requests a page.
    ///
    /// # Errors
    /// There is no answer within `limit`. The message contains a remedy.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<Answered> {
        let answer = match timeout(limit, self.exchange(path, limit)).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow!("no whole answer within {} s", limit.as_secs_f64())),
        };
        answer.map_err(|error| self.not_asked(&error).into())
    }

    /// The diagnostic for `error`, with a remedy for a wrong address.
    pub fn not_asked(&self, error: &anyhow::Error) -> Diagnostic {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let what = format!("cannot ask {scheme}://{}: {error:#}", self.authority);
        Diagnostic::new(what, Some(REMEDY.to_owned()))
    }

    async fn exchange(&self, path: &str, limit: Duration) -> Result<Answered> {
        let addresses = lookup_host((self.host.as_str(), self.port)).await?;
        let stream = dial::connect(&addresses.collect::<Vec<_>>(), limit).await?;
        let Some(tls) = &self.tls else { return self.request(stream, path).await };
        let name = tls::server_name(&self.host)?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        self.request(stream.map_err(explained)?, path).await
    }

    async fn request<S>(&self, stream: S, path: &str) -> Result<Answered>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let mut request = Request::get(format!("{}{path}", self.base))
            .header(HOST, &self.authority)
            .body(Empty::<Bytes>::new())?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answering = async {
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow!(error))?.to_bytes();
            Ok(Answered { status: head.status, headers: head.headers, body })
        };
        let answered = drive(connection, answering).await?;
        if matches!(answered.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let why = String::from_utf8_lossy(&answered.body);
            let why = clean(why.lines().next().unwrap_or_default()).into_owned();
            let hint = match (answered.status, &self.authorization) {
                (StatusCode::UNAUTHORIZED, None) => "; give --token-file or --login-file",
                (StatusCode::UNAUTHORIZED, Some(_)) => "; the token or login given is not accepted",
                _ => "",
            };
            bail!("it refuses ({}): {why}{hint}", answered.status.as_u16());
        }
        Ok(answered)
    }
}

/// The error of a TLS handshake, as the sentence with the remedy.
fn explained(error: io::Error) -> anyhow::Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => anyhow!("TLS: {}", tls::sentence(tls)),
        None => anyhow!("TLS: {error}"),
    }
}

/// Drives the connection until the answer is complete. The connection may end before the last bytes of
/// the answer are read.
async fn drive<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    answering: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (mut connection, mut answering) = (pin!(connection), pin!(answering));
    tokio::select! {
        biased;
        answer = &mut answering => return answer,
        // `answering` returns the error too.
        _ = &mut connection => {}
    }
    answering.await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::diagnostic::in_one_line;

    fn parse(url: &str) -> Result<Target> {
        Target::parse(url, &Credentials::default())
    }

    #[test]
    fn an_address_is_read_with_and_without_its_scheme() {
        let plain = parse("http://127.0.0.1:7000").unwrap();
        let bare = parse("127.0.0.1:7000").unwrap();
        assert_eq!((bare.host, bare.port), (plain.host.clone(), plain.port));
        assert_eq!((plain.host.as_str(), plain.port), ("127.0.0.1", 7000));
        assert_eq!(plain.base, "");
        let six = parse("http://[::1]:7000/steer/").unwrap();
        assert_eq!((six.host.as_str(), six.authority.as_str()), ("::1", "[::1]:7000"));
        assert_eq!(six.base, "/steer");
        assert_eq!(parse("http://front.example").unwrap().port, 80);
    }

    #[test]
    fn a_bad_address_is_refused_and_a_password_in_it_not_repeated() {
        for bad in [
            "ftp://h:7000",
            "http://",
            "http://h:70000",
            "http://h:0",
            "http://h:",
            "http://h:x",
            "",
            "a b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let error = parse("http://me:s3cret@h:7000").unwrap_err();
        assert!(!format!("{error:#}").contains("s3cret"));
    }

    /// Longer than any step here takes, on a busy machine too.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A server that accepts one connection and sends `answer`, repeatedly if `endless`.
    async fn server(answer: &'static [u8], is_endless: bool) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = parse(&listener.local_addr().unwrap().to_string()).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await;
            while stream.write_all(answer).await.is_ok() && is_endless {}
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        target
    }

    async fn why_not(target: &Target) -> String {
        in_one_line(&target.get("/", PATIENCE).await.unwrap_err())
    }

    #[tokio::test]
    async fn an_error_has_the_attempt_and_the_remedy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let why = why_not(&parse(&address).unwrap()).await;
        for part in [address.as_str(), "refused", "pgsteer run", "--http"] {
            assert!(why.contains(part), "{why}");
        }
    }

    #[tokio::test]
    async fn an_endless_answer_ends_at_the_limit() {
        let piece = format!("HTTP/1.0 200 OK\r\n\r\n{}", "x".repeat(100_000)).leak();
        let why = why_not(&server(piece.as_bytes(), true).await).await;
        assert!(why.contains("limit"), "{why}");
    }

    #[tokio::test]
    async fn a_server_of_another_kind_is_no_pgsteer() {
        let why = why_not(&server(b"SSH-2.0-OpenSSH_9.2\r\n", false).await).await;
        assert!(why.contains("cannot ask"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_login_does_not_wait_for_a_silent_server() {
        assert!(why_not(&server(b"", false).await).await.contains("within 60 s"));
    }
}
