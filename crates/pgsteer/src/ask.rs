//! The HTTP client of the commands: one bounded request to a running pgsteer.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use pgsteer_core::settings::Verify;
use pgsteer_core::text::clean;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::base::{Base, Peer};
use crate::diagnostic::Diagnostic;
use crate::dial;
use crate::exchange::{Answer, exchange};
use crate::secret::Secret;
use crate::tls::{self, Trust};

/// The maximum size of an answer. The document of a hundred members has a tenth of it.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The remedy for a failed request.
const REMEDY: &str = "check that `pgsteer run` is up there, and that this is the address of its \
                      --http; write another one as http://HOST:PORT";

/// The address of a pgsteer's pages, and how it is asked.
#[derive(Clone, Debug)]
pub struct Target {
    base: Base,
    /// The certificates that are accepted; none for plain HTTP.
    tls: Option<Arc<ClientConfig>>,
    authorization: Option<HeaderValue>,
    login_remedy: &'static str,
}

/// The login at a pgsteer, and the certificates that are accepted.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The file whose first line is the token.
    pub token_file: Option<PathBuf>,
    /// The file whose first line is `user:password`.
    pub login_file: Option<PathBuf>,
    /// The PEM file of the authorities; the default are those of the system.
    pub ca_file: Option<PathBuf>,
    /// What to do if a login is needed and none is given.
    pub login_remedy: &'static str,
}

impl Default for Credentials {
    fn default() -> Credentials {
        Credentials {
            token_file: None,
            login_file: None,
            ca_file: None,
            login_remedy: "give --token-file or --login-file",
        }
    }
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

impl Target {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`, the scheme being optional.
    ///
    /// # Errors
    /// The reason in one sentence. An address with a user name is not repeated, because it may contain a
    /// password too. Or a file of `credentials` cannot be used; the message names it.
    pub fn parse(url: &str, credentials: &Credentials) -> Result<Target> {
        let whole = match url.contains("://") {
            true => url.to_owned(),
            false => format!("http://{url}"),
        };
        let base = Base::of(Peer::Pgsteer, &whole).map_err(|why| anyhow!(why))?;
        let tls = if base.is_https() { Some(credentials.tls()?) } else { None };
        let authorization = credentials.authorization()?;
        Ok(Target { base, tls, authorization, login_remedy: credentials.login_remedy })
    }

    /// Returns true for an address of the loopback, which leads to this machine.
    pub fn is_this_machine(&self) -> bool {
        let ip = self.base.endpoint().ip();
        self.base.host() == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
    }

    /// Requests a page.
    ///
    /// # Errors
    /// There is no answer within `limit`. The message contains a remedy.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<Answer> {
        let answer = match timeout(limit, self.exchange(path, limit)).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow!("no whole answer within {} s", limit.as_secs_f64())),
        };
        answer.map_err(|error| self.not_asked(&error).into())
    }

    /// The diagnostic for `error`, with a remedy for a wrong address.
    pub fn not_asked(&self, error: &anyhow::Error) -> Diagnostic {
        let what = format!("cannot ask {}: {error:#}", self.base.url());
        Diagnostic::new(what, Some(REMEDY.to_owned()))
    }

    async fn exchange(&self, path: &str, limit: Duration) -> Result<Answer> {
        let addresses = lookup_host((self.base.host(), self.base.endpoint().port())).await?;
        let stream = dial::connect(&addresses.collect::<Vec<_>>(), limit).await?;
        let Some(tls) = &self.tls else { return self.request(stream, path).await };
        let name = tls::server_name(self.base.host())?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        self.request(stream.map_err(explained)?, path).await
    }

    async fn request<S>(&self, stream: S, path: &str) -> Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut request = Request::get(self.base.path_to(path))
            .header(HOST, self.base.endpoint().to_string())
            .body(Full::default())?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answer = exchange(stream, request, BODY_BYTES_MAX).await?;
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let why = String::from_utf8_lossy(&answer.body);
            let why = clean(why.lines().next().unwrap_or_default()).into_owned();
            let hint = match (answer.status, &self.authorization) {
                (StatusCode::UNAUTHORIZED, None) => self.login_remedy,
                (StatusCode::UNAUTHORIZED, Some(_)) => "the token or login given is not accepted",
                _ => "",
            };
            let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
            bail!("it refuses ({}): {why}{hint}", answer.status.as_u16());
        }
        Ok(answer)
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
        for (url, base, path) in [
            ("http://127.0.0.1:7000", "http://127.0.0.1:7000", "/health"),
            ("127.0.0.1:7000", "http://127.0.0.1:7000", "/health"),
            ("http://[::1]:7000/steer/", "http://[::1]:7000/steer", "/steer/health"),
        ] {
            let target = parse(url).unwrap();
            assert_eq!((&**target.base.url(), &*target.base.path_to("/health")), (base, path));
        }
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
