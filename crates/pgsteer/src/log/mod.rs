//! The log: lines on stderr, written by a thread of its own, cleaned and limited.
//!
//! Peers can cause lines, and their texts appear in lines. So each field is cleaned
//! ([`pgsteer_core::text`]), and equal lines are counted ([`limit`]). Both apply to every line; the code
//! that logs does not take care of it.

mod format;
pub mod limit;

use std::io::{self, IsTerminal};
use std::sync::mpsc;
use std::time::Duration;

use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::format::{CleanFields, JsonLines};
use self::limit::{Flusher, LineLimit};

/// How long the end of the process waits until its log is written.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The maximum number of lines that wait for stderr.
const LINES_MAX: usize = 10_000;

/// The format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Text.
    Text {
        /// With colours.
        ansi: bool,
    },
    /// One JSON object per line.
    Json,
}

impl Shape {
    /// Text, with colours if stderr is a terminal.
    pub fn text() -> Shape {
        Shape::Text { ansi: io::stderr().is_terminal() }
    }
}

/// The running log. Dropping it writes the rest, for `FLUSH_LIMIT` at most.
pub struct Log {
    flusher: Option<Flusher>,
    writer: Option<WorkerGuard>,
}

/// Starts the log on stderr, with level `info` unless `RUST_LOG` sets another. A thread writes it, so that
/// a reader of stderr that does not read delays nothing. Lines beyond `LINES_MAX` are lost.
pub fn start(shape: Shape) -> Log {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (stderr, writer) = NonBlockingBuilder::default()
        .thread_name("pgsteer-log")
        .buffered_lines_limit(LINES_MAX)
        .finish(io::stderr());
    let limit = LineLimit::default();
    subscriber(shape, filter, limit.clone(), stderr).init();
    Log { flusher: Flusher::start(limit).ok(), writer: Some(writer) }
}

/// The layers of a line: the filter by level, the limit, the format.
fn subscriber<W>(
    shape: Shape,
    filter: EnvFilter,
    limit: LineLimit,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_target(false);
    let registry = tracing_subscriber::registry().with(filter).with(limit);
    match shape {
        Shape::Text { ansi } => {
            let lines = lines.fmt_fields(CleanFields).with_ansi(ansi).with_writer(writer);
            Box::new(registry.with(lines))
        }
        Shape::Json => Box::new(registry.with(lines.json().with_writer(JsonLines(writer)))),
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, is_done) = mpsc::channel();
        let (flusher, writer) = (self.flusher.take(), self.writer.take());
        let flush = move || {
            drop(flusher);
            drop(writer);
            // The receiver does not exist any more after `FLUSH_LIMIT`.
            let _ = done.send(());
        };
        if std::thread::Builder::new().spawn(flush).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_LIMIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use pgsteer_core::text::is_hidden;
    use proptest::prelude::*;
    use tracing::subscriber::with_default;

    use super::*;

    /// The written bytes.
    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn captured(shape: Shape, limit: &LineLimit, work: impl FnOnce()) -> String {
        let log = Captured::default();
        let writer = log.clone();
        let filter = EnvFilter::new("info");
        let subscriber = subscriber(shape, filter, limit.clone(), move || writer.clone());
        with_default(subscriber, work);
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// The maximum number of windows that can have begun since `began`.
    fn windows(began: Instant) -> usize {
        usize::try_from(began.elapsed().as_secs()).unwrap() + 1
    }

    const SHAPES: [Shape; 2] = [Shape::Text { ansi: false }, Shape::Json];

    #[test]
    fn equal_lines_are_written_once_and_then_with_their_count() {
        for shape in SHAPES {
            let (limit, began) = (LineLimit::default(), Instant::now());
            let log = captured(shape, &limit, || {
                for _ in 0..10_000 {
                    tracing::info!(service = "write", detail = "no primary", "client refused");
                }
                tracing::info!(service = "read", detail = "no primary", "client refused");
                limit.flush_all();
            });
            let lines: Vec<&str> = log.lines().collect();
            let counted: Vec<&&str> =
                lines.iter().filter(|line| line.contains("repeated")).collect();
            let whole = counted.iter().filter(|line| line.contains("client refused")).count();
            assert!(!counted.is_empty() && whole == counted.len(), "{log}");
            assert_eq!(lines.iter().filter(|line| line.contains("read")).count(), 1, "{log}");
            // On a busy machine each written line may begin another window.
            assert!(lines.len() <= 1 + 2 * windows(began), "{log}");
            let is_written = |line: &&&str| line.contains("write") && !line.contains("repeated");
            let written = lines.iter().filter(is_written).count();
            assert!(windows(began) > 1 || log.contains(&(10_000 - written).to_string()), "{log}");
        }
    }

    #[test]
    fn a_peer_that_changes_its_text_gets_no_more_lines() {
        let (limit, began) = (LineLimit::default(), Instant::now());
        let log = captured(SHAPES[0], &limit, || {
            for user in 0..10_000 {
                tracing::warn!(service = "write", "no such user u{user}");
            }
            limit.flush_all();
        });
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines.len() <= 6 * windows(began), "{} lines", lines.len());
        assert!(lines.last().unwrap().contains("no such user u9999"), "{log}");
    }

    #[test]
    fn all_decisions_of_the_engine_are_written() {
        let limit = LineLimit::default();
        let log = captured(SHAPES[0], &limit, || {
            for member in 0..200 {
                tracing::warn!(target: limit::DECISIONS, "write gate of n{member} is shut");
            }
            tracing::warn!(target: limit::DECISIONS, "write gate of n0 is shut");
        });
        assert_eq!(log.lines().count(), 201);
        let began = Instant::now();
        let flapping = captured(SHAPES[0], &LineLimit::default(), || {
            for _ in 0..1_000 {
                tracing::warn!(target: limit::DECISIONS, "write gate of n1 is shut");
                tracing::info!(target: limit::DECISIONS, "write gate of n1 is open");
            }
        });
        assert!(flapping.lines().count() <= 10 * windows(began), "{flapping}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_line_is_forged_or_hides_anything(text in any::<String>(), c in any::<char>()) {
            let hostile = format!("{text}{c}\n2026-11-27T14:42:22Z  WARN all is lost \u{1b}[31m\u{202e}");
            for shape in SHAPES {
                let log = captured(shape, &LineLimit::default(), || {
                    tracing::warn!(user = hostile.as_str(), by = %hostile, "failed: {hostile}");
                });
                let line = log.strip_suffix('\n').unwrap();
                prop_assert!(!line.contains(is_hidden), "{line:?}");
            }
        }
    }

    #[test]
    fn a_line_has_the_usual_format() {
        let log = captured(SHAPES[0], &LineLimit::default(), || {
            tracing::info!(service = "write", sessions = 3, member = %"n1", "sessions ended");
        });
        let expected = "  INFO sessions ended service=\"write\" sessions=3 member=n1\n";
        assert!(log.ends_with(expected), "{log}");
    }
}
