//! The responses of the pages that are not kept: short texts and errors.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

/// A response.
pub type Page = Response<Full<Bytes>>;

const PLAIN: &str = "text/plain; charset=utf-8";

/// 405: the page does not support the method; `allowed` lists those that it supports.
pub fn not_allowed(allowed: &'static str) -> Page {
    let body = format!("This page can only be read: {allowed}.\n");
    let mut answer = closing(plain(StatusCode::METHOD_NOT_ALLOWED, body));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// 413: the request has a body, which no page reads.
pub fn body_refused() -> Page {
    let body = "A request for these pages has no body.\n".to_owned();
    closing(plain(StatusCode::PAYLOAD_TOO_LARGE, body))
}

/// 500: an internal error.
pub fn broken<E: std::error::Error>(error: &E) -> Page {
    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("the page cannot be written: {error}\n"))
}

/// `answer`, after which the connection is closed: a body may follow the request, and no page reads it.
fn closing(mut answer: Page) -> Page {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A response of plain text.
pub fn plain(status: StatusCode, body: impl Into<Bytes>) -> Page {
    text(status, PLAIN, body)
}

/// A response of this media type.
pub fn text(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Page {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The pages contain names and messages of servers, which no browser may interpret as HTML.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
