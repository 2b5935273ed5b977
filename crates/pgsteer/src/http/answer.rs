//! The responses of the pages that are not kept: short texts and errors.

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::stream::EventBody;

/// A response.
pub type Page = Response<Either<Full<Bytes>, EventBody>>;

const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

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

/// 503: there are too many readers of the streams.
pub fn too_many_streams(max: usize) -> Page {
    let body =
        format!("There are already {max} readers of the streams; close one, or try again.\n");
    let mut answer = closing(plain(StatusCode::SERVICE_UNAVAILABLE, body));
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

/// A stream of events.
pub fn events(body: EventBody) -> Page {
    let mut answer = text(StatusCode::OK, "text/event-stream", "");
    *answer.body_mut() = Either::Right(body);
    // A proxy in between passes each event on at once.
    answer.headers_mut().insert(BUFFERING, HeaderValue::from_static("no"));
    answer
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
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The pages contain names and messages of servers, which no browser may interpret as HTML.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
