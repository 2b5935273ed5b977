//! Requests the status document of a running pgsteer.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::StatusCode;
use pgsteer_core::text::{SENTENCE_CHARS_MAX, clean_to, json_escaped};
use serde_json::Value;

use super::document::Document;
use crate::ask::Target;

const PATH: &str = "/api/v1/status";

const NO_DOCUMENT: &str =
    "the answer is not a status document: it is not from pgsteer, or from another version";

/// The time limit of one request.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// The answer of a running pgsteer.
#[derive(Debug)]
pub struct Received {
    /// The text of the document, with hidden characters escaped.
    pub text: String,
    /// The document, with its texts safe to print.
    pub document: Document,
}

/// Requests the document.
///
/// # Errors
/// There is no answer within five seconds, or it is no status document. The message has a remedy.
pub async fn ask(target: &Target) -> Result<Received> {
    let answered = target.get(PATH, ASK_LIMIT).await?;
    read(answered.status, &answered.body).map_err(|error| target.not_asked(&error).into())
}

pub(super) fn read(status: StatusCode, body: &[u8]) -> Result<Received> {
    if status != StatusCode::OK {
        bail!(
            "the answer to {PATH} is {status}: it is not from pgsteer, or from a very old version"
        );
    }
    let text =
        std::str::from_utf8(body).context("the answer is not text, so it is not from pgsteer")?;
    let value: Value = serde_json::from_str(text).context(NO_DOCUMENT)?;
    // The answer may come from any program, and its texts are printed on a terminal.
    let document = serde_json::from_value(cleaned(value)).context(NO_DOCUMENT)?;
    Ok(Received { text: json_escaped(text).into_owned(), document })
}

/// `value` with all its texts cleaned, the keys included.
fn cleaned(value: Value) -> Value {
    let text = |text: String| clean_to(&text, SENTENCE_CHARS_MAX).into_owned();
    match value {
        Value::String(own) => Value::String(text(own)),
        Value::Array(list) => list.into_iter().map(cleaned).collect(),
        Value::Object(map) => map.into_iter().map(|(key, own)| (text(key), cleaned(own))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;
    use crate::clock::Clock;
    use crate::http::{self, Pages, sample};

    #[test]
    fn an_answer_that_is_not_a_document_is_an_error() {
        let why = |status, body| format!("{:#}", read(status, body).unwrap_err());
        assert!(why(StatusCode::NOT_FOUND, b"").contains("404"));
        assert!(why(StatusCode::OK, b"<html>").contains("not a status document"));
        assert!(why(StatusCode::OK, b"\xff").contains("not text"));
    }

    #[tokio::test]
    async fn the_document_of_a_running_pgsteer_is_read() {
        let listener = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let target = Target::parse(
            &listener.local_addr().unwrap().to_string(),
            &crate::ask::Credentials::default(),
        )
        .unwrap();
        let (_keep, snapshot) = watch::channel(Arc::new(sample::snapshot()));
        let pages = Pages {
            peers: Vec::new(),
            access: http::Access::open(),
            snapshot,
            stats: Arc::new(sample::stats()),
            clock: Clock::start(),
            heartbeat: Arc::default(),
            history: Arc::default(),
            config: watch::channel(Arc::default()).1,
            streams: http::Streams::affordable(),
            ready: http::ReadyPages::default(),
        };
        tokio::spawn(http::serve(listener, None, pages));
        let received = ask(&target).await.unwrap();
        assert_eq!(received.document.generation, 42);
        assert_eq!(serde_json::from_str::<Document>(&received.text).unwrap(), received.document);
    }
}
