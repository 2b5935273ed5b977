//! One HTTP exchange over an open connection: send a request, read the whole answer, within bounds.
//!
//! Who connects, and what an error means to its reader, differs between the sources and the commands.

use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// The maximum size of an answer's head in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// When the request was sent.
    pub asked: Instant,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Unanswered {
    /// The connection failed, or the answer is not HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The body is too large.
    #[error("the answer exceeds the limit of {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}

/// Opens HTTP on a connection.
///
/// # Errors
/// Hyper refuses the connection.
pub async fn open<S>(
    stream: S,
) -> hyper::Result<(SendRequest<Full<Bytes>>, Connection<TokioIo<S>, Full<Bytes>>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await
}

/// Sends `request` and reads the whole answer, whose body has at most `bytes_max` bytes. There is no
/// time limit here.
///
/// # Errors
/// The connection fails, the answer is not HTTP, or it is too large.
pub async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<Answer, Unanswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = open(stream).await?;
    let asked = Instant::now();
    let answering = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = whole(body, bytes_max).await?;
        Ok(Answer { asked, status: head.status, headers: head.headers, body })
    };
    let (mut connection, mut answering) = (pin!(connection), pin!(answering));
    tokio::select! {
        biased;
        answer = &mut answering => return answer,
        // If the server closes, the connection ends before its last bytes are read. `answering` returns
        // its error too.
        _ = &mut connection => {}
    }
    answering.await
}

/// Reads a whole body of at most `bytes_max` bytes.
///
/// # Errors
/// The connection fails, or the body is too large.
pub async fn whole(body: Incoming, bytes_max: usize) -> Result<Bytes, Unanswered> {
    let read = Limited::new(body, bytes_max).collect().await;
    let body = read.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => Unanswered::Http(*error),
        // `Limited` has one error of its own, `LengthLimitError`.
        Err(_) => Unanswered::TooLarge { bytes_max },
    });
    Ok(body?.to_bytes())
}
