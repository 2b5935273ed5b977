//! The limit of log lines, so that a peer that repeats an action does not fill the log.
//!
//! Lines are of one kind if the same statement of the code wrote them about the same service and member.
//! Within one second ([`WINDOW`]) equal lines are written once, and only the first few different lines of
//! a kind are written. The others are counted. At the end of the second the last of them is written, with
//! the count as `repeated`. Lines about pgsteer's decisions ([`DECISIONS`]) have a higher limit. Lines at
//! debug and trace level have no limit.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgsteer_core::text::{SENTENCE_CHARS_MAX, clean_to};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Equal lines are written once in this time.
pub const WINDOW: Duration = Duration::from_secs(1);

/// The target of lines about pgsteer's decisions and about orders of the operator. A peer cannot cause
/// them at any rate, and a cluster with many members has many of them at once.
pub const DECISIONS: &str = "pgsteer::decisions";

/// The limit within [`WINDOW`] of lines that a peer can cause.
const OF_PEERS: Limit = Limit { lines_max: 5, equal_max: 1 };

/// The limit within [`WINDOW`] of [`DECISIONS`].
const OF_DECISIONS: Limit = Limit { lines_max: 250, equal_max: 5 };

/// The maximum number of kinds. Above it all lines of one statement are of one kind.
const KINDS_MAX: usize = 1_024;

/// The target of a line with a count. It has no limit.
const COUNTED: &str = "pgsteer::repeated";

/// The layer that drops lines above the limit. Its clones share one state.
#[derive(Clone, Default)]
pub struct LineLimit(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when a line was dropped, and at the end.
    is_due: Condvar,
}

#[derive(Default)]
struct State {
    kinds: HashMap<Kind, Count>,
    /// Counts that were not written before the next window began.
    ended: Vec<Repeated>,
    is_over: bool,
}

/// How many lines of one kind are written within [`WINDOW`].
#[derive(Clone, Copy)]
struct Limit {
    /// All lines.
    lines_max: usize,
    /// Equal lines.
    equal_max: usize,
}

/// A kind of lines.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    callsite: Identifier,
    /// A hash of the service and the member; none above [`KINDS_MAX`].
    about: Option<u64>,
}

/// The lines of one kind in one window.
struct Count {
    began: Instant,
    /// Hashes of the lines that were written.
    written: Vec<u64>,
    dropped: Option<Repeated>,
}

/// Dropped lines: the last one, and their number.
#[derive(Clone, Debug, PartialEq)]
struct Repeated {
    level: Level,
    text: String,
    count: u64,
}

/// The parts of a line that the limit uses.
struct Line {
    kind: Kind,
    level: Level,
    text: String,
    limit: Limit,
}

impl<S: Subscriber> Layer<S> for LineLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == COUNTED {
            return true;
        }
        let is_written = self.state().admit(Line::of(event), Instant::now());
        if !is_written {
            self.0.is_due.notify_one();
        }
        is_written
    }
}

impl LineLimit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all counts, also those of windows that have not ended.
    pub fn flush_all(&self) {
        let repeated = self.state().take(None);
        write(repeated);
    }

    /// Waits for counts and writes each at the end of its window, until the log ends.
    fn flush_always(&self) {
        let mut state = self.state();
        while !state.is_over {
            let repeated = state.take(Some(Instant::now()));
            if repeated.is_empty() {
                state = match state.next_end() {
                    Some(end) => {
                        let wait = end.saturating_duration_since(Instant::now());
                        let waited = self.0.is_due.wait_timeout(state, wait.max(MIN_WAIT));
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self.0.is_due.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
            } else {
                // These lines pass this layer again, which locks the state.
                drop(state);
                write(repeated);
                state = self.state();
            }
        }
    }
}

/// The minimum wait, so that rounding cannot make the thread loop without a pause.
const MIN_WAIT: Duration = Duration::from_millis(1);

impl State {
    /// Returns true if the line is to be written; counts it otherwise.
    fn admit(&mut self, line: Line, now: Instant) -> bool {
        let Line { mut kind, level, text, limit } = line;
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            self.kinds.retain(|_, count| count.dropped.is_some() || !count.has_ended(now));
            if self.kinds.len() >= KINDS_MAX {
                kind.about = None;
            }
        }
        let new = || Count { began: now, written: Vec::new(), dropped: None };
        let count = self.kinds.entry(kind).or_insert_with(new);
        if count.has_ended(now) {
            self.ended.extend(std::mem::replace(count, new()).dropped);
        }
        let hash = hash_of(&text);
        let equal = count.written.iter().filter(|written| **written == hash).count();
        if count.written.len() < limit.lines_max && equal < limit.equal_max {
            count.written.push(hash);
            return true;
        }
        let before = count.dropped.take().map_or(0, |dropped| dropped.count);
        count.dropped = Some(Repeated { level, text, count: before + 1 });
        false
    }

    /// Takes the counts of the windows that have ended by `now`; all counts if there is no `now`.
    fn take(&mut self, now: Option<Instant>) -> Vec<Repeated> {
        let ended =
            self.kinds.values_mut().filter(|count| now.is_none_or(|now| count.has_ended(now)));
        let dropped: Vec<Repeated> = ended.filter_map(|count| count.dropped.take()).collect();
        self.ended.drain(..).chain(dropped).collect()
    }

    /// The end of the next window with a count.
    fn next_end(&self) -> Option<Instant> {
        let counts = self.kinds.values().filter(|count| count.dropped.is_some());
        counts.map(|count| count.began + WINDOW).min()
    }
}

impl Count {
    fn has_ended(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= WINDOW
    }
}

impl Line {
    fn of(event: &Event<'_>) -> Line {
        let metadata = event.metadata();
        let mut reader = Reader::default();
        event.record(&mut reader);
        let text = clean_to(&reader.text, SENTENCE_CHARS_MAX).into_owned();
        Line {
            kind: Kind { callsite: metadata.callsite(), about: Some(hash_of(&reader.about)) },
            level: *metadata.level(),
            text,
            limit: match metadata.target() {
                DECISIONS => OF_DECISIONS,
                _ => OF_PEERS,
            },
        }
    }
}

/// Reads the fields of a line.
#[derive(Default)]
struct Reader {
    about: String,
    text: String,
}

impl Visit for Reader {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" if self.text.is_empty() => write!(self.text, "{value:?}"),
            "message" => write!(self.text, " {value:?}"),
            name => write!(self.text, " {name}={value:?}"),
        };
        if matches!(field.name(), "service" | "member") {
            let _ = write!(self.about, "{value:?} ");
        }
    }
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn write(repeated: Vec<Repeated>) {
    for Repeated { level, text, count } in repeated {
        match level {
            Level::ERROR => tracing::error!(target: COUNTED, repeated = count, "{text}"),
            Level::WARN => tracing::warn!(target: COUNTED, repeated = count, "{text}"),
            _ => tracing::info!(target: COUNTED, repeated = count, "{text}"),
        }
    }
}

/// The thread that writes the counts. Dropping it writes the remaining ones.
pub struct Flusher {
    limit: LineLimit,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread, which writes to the log of the process.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(limit: LineLimit) -> io::Result<Flusher> {
        let flushed = limit.clone();
        let thread = std::thread::Builder::new()
            .name("pgsteer-log-cnt".to_owned())
            .spawn(move || flushed.flush_always())?;
        Ok(Flusher { limit, thread: Some(thread) })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.limit.state().is_over = true;
        self.limit.0.is_due.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was logged by the thread.
            let _ = thread.join();
        }
        self.limit.flush_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(about: u64, text: &str) -> Line {
        struct Callsite;
        impl tracing::Callsite for Callsite {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("the limit does not read it")
            }
        }
        static CALLSITE: Callsite = Callsite;
        Line {
            kind: Kind { callsite: Identifier(&CALLSITE), about: Some(about) },
            level: Level::INFO,
            text: text.to_owned(),
            limit: OF_PEERS,
        }
    }

    #[test]
    fn the_count_of_a_window_is_written_when_the_window_has_ended() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.admit(line(1, "a"), start));
        assert!(!state.admit(line(1, "a"), start + WINDOW / 2));
        assert!(state.admit(line(1, "b"), start + WINDOW / 2), "another line");
        assert!(state.admit(line(2, "a"), start + WINDOW / 2), "about another member");
        assert_eq!(state.next_end(), Some(start + WINDOW));
        assert_eq!(state.take(Some(start + WINDOW / 2)), []);
        let [Repeated { count: 1, text, .. }] = &state.take(Some(start + WINDOW))[..] else {
            panic!("no count");
        };
        assert_eq!(text, "a");
        assert_eq!(state.next_end(), None);
        assert!(state.admit(line(1, "a"), start + WINDOW), "the next window");
    }

    #[test]
    fn a_count_is_not_lost_when_the_next_window_begins_first() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.admit(line(1, "a"), start));
        assert!(!state.admit(line(1, "a"), start));
        assert!(state.admit(line(1, "a"), start + WINDOW * 2));
        assert_eq!(state.take(Some(start + WINDOW * 2)).len(), 1);
    }

    #[test]
    fn an_unlimited_number_of_kinds_takes_bounded_memory_and_bounded_lines() {
        let (mut state, start) = (State::default(), Instant::now());
        let written = (0..100_000).filter(|about| state.admit(line(*about, "a"), start)).count();
        assert!(state.kinds.len() <= KINDS_MAX + 1, "{}", state.kinds.len());
        assert!(written <= KINDS_MAX + 1, "{written}");
        assert!(state.admit(line(1 << 40, "a"), start + WINDOW), "the next window");
    }
}
