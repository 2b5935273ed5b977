//! `pgsteer status`: requests the status document of a running pgsteer and prints it.

pub mod document;
pub mod human;
pub mod picture;
pub mod stamp;
pub mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::StatusCode;
use pgsteer_core::text::{SENTENCE_CHARS_MAX, clean_to, json_escaped};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use self::document::Document;
use self::picture::draw;
use self::table::Ink;
use crate::ask::Target;
use crate::diagnostic::{in_lines, report};

/// How often `--watch` prints the document.
const WATCH_EVERY: Duration = Duration::from_secs(1);

const PATH: &str = "/api/v1/status";

const NO_DOCUMENT: &str =
    "the answer is not a status document: it is not from pgsteer, or from another version";

/// The time limit of one request.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// The answer of a running pgsteer.
#[derive(Debug)]
struct Received {
    /// The text of the document, with hidden characters escaped.
    text: String,
    /// The document.
    document: Document,
}

/// The meaning of the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Every service has an open gate, and no member accepts writes that it must not accept.
    AllWell,
    /// A service has no open gate, so its clients wait; or there is a rogue primary.
    Trouble,
    /// There is no answer.
    NoAnswer,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        ExitCode::from(match outcome {
            Outcome::AllWell => 0,
            Outcome::Trouble => 1,
            Outcome::NoAnswer => 2,
        })
    }
}

/// Requests the document at `http_url` and prints it: as tables, with `json` as JSON, with `watch` every
/// second until Ctrl-C.
pub fn run(http_url: &str, json: bool, watch: bool) -> ExitCode {
    match ask_and_print(http_url, json, watch) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            report(&error, "shown");
            Outcome::NoAnswer.into()
        }
    }
}

fn ask_and_print(http_url: &str, json: bool, watch: bool) -> Result<Outcome> {
    let target = Target::parse(http_url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        match watch {
            true => watch_until_interrupted(&target, json).await,
            false => show_once(&target, json).await,
        }
    });
    // A name that is still being resolved must not keep the command from ending.
    runtime.shutdown_background();
    outcome
}

async fn ask(target: &Target) -> Result<Received> {
    let answered = target.get(PATH, ASK_LIMIT).await?;
    read(answered.status, &answered.body).map_err(|error| target.not_asked(&error).into())
}

fn read(status: StatusCode, body: &[u8]) -> Result<Received> {
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

async fn show_once(target: &Target, json: bool) -> Result<Outcome> {
    let received = ask(target).await?;
    print(&shown(&received, json, ink()))?;
    Ok(outcome(&received.document))
}

async fn watch_until_interrupted(target: &Target, json: bool) -> Result<Outcome> {
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Outcome::NoAnswer;
    let redrawing = async {
        loop {
            ticks.tick().await;
            // The watch goes on: a pgsteer that is restarted answers again.
            let page = match ask(target).await {
                Ok(received) => {
                    last = outcome(&received.document);
                    shown(&received, json, ink())
                }
                Err(error) => {
                    last = Outcome::NoAnswer;
                    format!("{}\n", in_lines(&error))
                }
            };
            if print(&redrawn(&page, json)).is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = redrawing => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C")?,
    }
    Ok(last)
}

fn shown(received: &Received, json: bool, ink: Ink) -> String {
    match json {
        true => format!("{}\n", received.text.trim_end()),
        false => draw(&received.document, ink),
    }
}

/// The page with what places it over the last one. In a file, a pipe or as JSON it follows the last one.
fn redrawn(page: &str, json: bool) -> String {
    match (io::stdout().is_terminal(), json) {
        // Moves the cursor home, erases the rest of each line, and then the lines below the page. To erase
        // the screen first would make it flicker.
        (true, false) => format!("\x1b[H{}\x1b[J", page.replace('\n', "\x1b[K\n")),
        (_, true) => page.to_owned(),
        (false, false) => format!("{page}\n"),
    }
}

fn outcome(document: &Document) -> Outcome {
    let mut services = document.clusters.iter().flat_map(|cluster| &cluster.services);
    let mut members = document.clusters.iter().flat_map(|cluster| &cluster.members);
    let all_served = services.all(|service| !service.open.is_empty());
    match all_served && !members.any(|member| member.rogue) {
        true => Outcome::AllWell,
        false => Outcome::Trouble,
    }
}

/// Colours on a terminal, unless NO_COLOR is set (no-color.org).
fn ink() -> Ink {
    let is_declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match io::stdout().is_terminal() && !is_declined {
        true => Ink::Colour,
        false => Ink::Plain,
    }
}

fn print(page: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(page.as_bytes()).and_then(|()| out.flush()) {
        // The reader has closed the pipe, as in `pgsteer status | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
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
    fn the_exit_code_is_0_if_every_service_has_an_open_gate() {
        assert_eq!(outcome(&sample::document_of(&sample::snapshot())), Outcome::Trouble);
        assert_eq!(outcome(&sample::document_of(&sample::calm())), Outcome::AllWell);
    }

    #[test]
    fn the_exit_code_is_1_if_there_is_a_rogue_primary() {
        let mut snapshot = sample::calm();
        snapshot.members.values_mut().next().unwrap().rogue = true;
        assert_eq!(outcome(&sample::document_of(&snapshot)), Outcome::Trouble);
    }

    #[test]
    fn an_answer_that_is_not_a_document_is_an_error() {
        let why = |status, body| format!("{:#}", read(status, body).unwrap_err());
        assert!(why(StatusCode::NOT_FOUND, b"").contains("404"));
        assert!(why(StatusCode::OK, b"<html>").contains("not a status document"));
        assert!(why(StatusCode::OK, b"\xff").contains("not text"));
    }

    #[test]
    fn control_characters_in_an_answer_do_not_reach_the_terminal() {
        let mut document = sample::document_of(&sample::snapshot());
        let forged = "\u{1b}[2Jall is well\n\u{202e}";
        document.version = forged.to_owned();
        document.clusters[0].members[0].name = forged.to_owned();
        document.clusters[0].events[0].text = forged.repeat(100_000);
        let received = read(StatusCode::OK, &serde_json::to_vec(&document).unwrap()).unwrap();
        let is_forged = |c: char| c != '\n' && pgsteer_core::text::is_hidden(c);
        for json in [true, false] {
            let page = shown(&received, json, Ink::Plain);
            assert!(!page.contains(is_forged), "json {json}: {page:?}");
        }
        assert_eq!(serde_json::from_str::<Document>(&received.text).unwrap(), document);
        assert_eq!(received.document.version, "\\u{1b}[2Jall is well\\n\\u{202e}");
    }

    #[tokio::test]
    async fn the_document_of_a_running_pgsteer_is_read() {
        let listener = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let target = Target::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let (_keep, snapshot) = watch::channel(Arc::new(sample::snapshot()));
        let pages = Pages {
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
