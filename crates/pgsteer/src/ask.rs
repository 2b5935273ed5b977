//! The HTTP client of the commands: one bounded request to a running pgsteer.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::diagnostic::Diagnostic;
use crate::dial;

/// The maximum size of an answer. The document of a hundred members has a tenth of it.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The maximum size of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The remedy for a failed request.
const REMEDY: &str = "is `pgsteer run` up there, and is this the address of its --http? \
                      Name another as http://HOST:PORT";

/// The address of a pgsteer's pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    /// Host and port for the Host header.
    authority: String,
    /// The prefix of every path.
    base: String,
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
    /// Reads `http://HOST[:PORT]`, the scheme being optional.
    ///
    /// # Errors
    /// The reason in one sentence. An address with a user name is not repeated, because it may contain a
    /// password too.
    pub fn parse(url: &str) -> Result<Target> {
        ensure!(!url.contains('@'), "the address of a pgsteer must not name a user");
        let whole = match url.contains("://") {
            true => url.to_owned(),
            false => format!("http://{url}"),
        };
        let bad = |why: &str| anyhow!("`{url}` is no address as http://HOST:PORT: {why}");
        let uri: Uri = whole.parse().map_err(|_| match whole.contains("[") {
            false if whole.matches(':').count() > 2 => {
                bad("an IPv6 address needs brackets: http://[::1]:7000")
            }
            _ => bad("it is no URL"),
        })?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("pgsteer has its pages on http only"));
        }
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Some(80),
            Some(port) => port.strip_prefix(':').and_then(|digits| digits.parse().ok()),
            None => None,
        };
        let port = port.filter(|port| *port != 0);
        Ok(Target {
            host: host.to_owned(),
            port: port.ok_or_else(|| bad("the port is no number from 1 to 65535"))?,
            authority: authority.to_string(),
            base: uri.path().trim_end_matches('/').to_owned(),
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
        let what = format!("cannot ask http://{}: {error:#}", self.authority);
        Diagnostic::new(what, Some(REMEDY.to_owned()))
    }

    async fn exchange(&self, path: &str, limit: Duration) -> Result<Answered> {
        let addresses = lookup_host((self.host.as_str(), self.port)).await?;
        let stream = dial::connect(&addresses.collect::<Vec<_>>(), limit).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let request = Request::get(format!("{}{path}", self.base))
            .header(HOST, &self.authority)
            .body(Empty::<Bytes>::new())?;
        let answering = async {
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow!(error))?.to_bytes();
            Ok(Answered { status: head.status, headers: head.headers, body })
        };
        drive(connection, answering).await
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

    #[test]
    fn an_address_is_read_with_and_without_its_scheme() {
        let plain = Target::parse("http://127.0.0.1:7000").unwrap();
        assert_eq!(Target::parse("127.0.0.1:7000").unwrap(), plain);
        assert_eq!((plain.host.as_str(), plain.port), ("127.0.0.1", 7000));
        assert_eq!(plain.base, "");
        let six = Target::parse("http://[::1]:7000/steer/").unwrap();
        assert_eq!((six.host.as_str(), six.authority.as_str()), ("::1", "[::1]:7000"));
        assert_eq!(six.base, "/steer");
        assert_eq!(Target::parse("http://front.example").unwrap().port, 80);
    }

    #[test]
    fn a_bad_address_is_refused_and_a_password_in_it_not_repeated() {
        for bad in [
            "https://h:7000",
            "http://",
            "http://h:70000",
            "http://h:0",
            "http://h:",
            "http://h:x",
            "",
            "a b",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        let error = Target::parse("http://me:s3cret@h:7000").unwrap_err();
        assert!(!format!("{error:#}").contains("s3cret"));
    }

    /// Longer than any step here takes, on a busy machine too.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A server that accepts one connection and sends `answer`, repeatedly if `endless`.
    async fn server(answer: &'static [u8], is_endless: bool) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&listener.local_addr().unwrap().to_string()).unwrap();
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
    async fn an_error_says_what_was_tried_and_what_to_do() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let why = why_not(&Target::parse(&address).unwrap()).await;
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
    async fn a_server_that_says_nothing_is_not_waited_for() {
        assert!(why_not(&server(b"", false).await).await.contains("within 60 s"));
    }
}
