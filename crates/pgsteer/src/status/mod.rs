//! `pgsteer status`: asks a running pgsteer for its status document and shows it to people.

pub mod document;
mod human;
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

/// How often `--watch` draws anew.
const WATCH_EVERY: Duration = Duration::from_secs(1);

const PATH: &str = "/api/v1/status";

const NO_DOCUMENT: &str =
    "the answer is no status document, so it is no pgsteer or another version";

/// The time for the whole exchange.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// What a running pgsteer told.
#[derive(Debug)]
struct Asked {
    /// The document as it came, with hidden characters escaped.
    text: String,
    /// The same, read.
    document: Document,
}

/// What the exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Every service has an open gate, and no member takes writes that it must not take.
    AllWell,
    /// Some service has no open gate, so its clients wait; or there is a rogue primary.
    Trouble,
    /// Nobody could be asked.
    NotAsked,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        ExitCode::from(match outcome {
            Outcome::AllWell => 0,
            Outcome::Trouble => 1,
            Outcome::NotAsked => 2,
        })
    }
}

/// Asks the pgsteer whose pages are at `http_url` and prints what it tells: as tables, with
/// `json` as the document itself, with `watch` anew every second until Ctrl-C.
pub fn run(http_url: &str, json: bool, watch: bool) -> ExitCode {
    match ask_and_print(http_url, json, watch) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            report(&error, "shown");
            Outcome::NotAsked.into()
        }
    }
}

fn ask_and_print(http_url: &str, json: bool, watch: bool) -> Result<Outcome> {
    let target = Target::parse(http_url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
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

async fn ask(target: &Target) -> Result<Asked> {
    let answered = target.get(PATH, ASK_LIMIT).await?;
    read(answered.status, &answered.body).map_err(|error| target.not_asked(&error).into())
}

fn read(status: StatusCode, body: &[u8]) -> Result<Asked> {
    if status != StatusCode::OK {
        bail!("the answer to {PATH} is {status}, so it is no pgsteer or a very old one");
    }
    let text = std::str::from_utf8(body).context("the answer is no text, so it is no pgsteer")?;
    let value: Value = serde_json::from_str(text).context(NO_DOCUMENT)?;
    // What answers there may be anything, and its texts are shown on a terminal.
    let document = serde_json::from_value(cleaned(value)).context(NO_DOCUMENT)?;
    Ok(Asked { text: json_escaped(text).into_owned(), document })
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
    let asked = ask(target).await?;
    print(&shown(&asked, json, ink()))?;
    Ok(outcome(&asked.document))
}

async fn watch_until_interrupted(target: &Target, json: bool) -> Result<Outcome> {
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Outcome::NotAsked;
    let redrawing = async {
        loop {
            ticks.tick().await;
            // A pgsteer that is being started again comes back, so the watch goes on.
            let page = match ask(target).await {
                Ok(asked) => {
                    last = outcome(&asked.document);
                    shown(&asked, json, ink())
                }
                Err(error) => {
                    last = Outcome::NotAsked;
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
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C")?,
    }
    Ok(last)
}

fn shown(asked: &Asked, json: bool, ink: Ink) -> String {
    match json {
        true => format!("{}\n", asked.text.trim_end()),
        false => draw(&asked.document, ink),
    }
}

/// The page in the place of the last one; on something that is no terminal, or as JSON, below
/// it.
fn redrawn(page: &str, json: bool) -> String {
    match (io::stdout().is_terminal(), json) {
        // Home, the page with what is left of each old line erased, and the rest below it.
        // Erasing first would make the picture flicker.
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

/// Colour is for eyes at a terminal that did not decline it (no-color.org).
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
        // `pgsteer status | head` has seen enough.
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
    fn the_exit_code_tells_whether_every_service_has_an_open_gate() {
        assert_eq!(outcome(&sample::document_of(&sample::snapshot())), Outcome::Trouble);
        assert_eq!(outcome(&sample::document_of(&sample::calm())), Outcome::AllWell);
    }

    #[test]
    fn the_exit_code_tells_of_a_rogue_primary_although_every_service_has_an_open_gate() {
        let mut snapshot = sample::calm();
        snapshot.members.values_mut().next().unwrap().rogue = true;
        assert_eq!(outcome(&sample::document_of(&snapshot)), Outcome::Trouble);
    }

    #[test]
    fn an_answer_that_is_no_document_is_named_as_such() {
        let why = |status, body| format!("{:#}", read(status, body).unwrap_err());
        assert!(why(StatusCode::NOT_FOUND, b"").contains("404"));
        assert!(why(StatusCode::OK, b"<html>").contains("no status document"));
        assert!(why(StatusCode::OK, b"\xff").contains("no text"));
    }

    #[test]
    fn what_an_impostor_sends_cannot_drive_the_terminal() {
        let mut document = sample::document_of(&sample::snapshot());
        let forged = "\u{1b}[2Jall is well\n\u{202e}";
        document.version = forged.to_owned();
        document.clusters[0].members[0].name = forged.to_owned();
        document.clusters[0].events[0].text = forged.repeat(100_000);
        let asked = read(StatusCode::OK, &serde_json::to_vec(&document).unwrap()).unwrap();
        let is_forged = |c: char| c != '\n' && pgsteer_core::text::is_hidden(c);
        for json in [true, false] {
            let page = shown(&asked, json, Ink::Plain);
            assert!(!page.contains(is_forged), "json {json}: {page:?}");
        }
        assert_eq!(serde_json::from_str::<Document>(&asked.text).unwrap(), document);
        assert_eq!(asked.document.version, "\\u{1b}[2Jall is well\\n\\u{202e}");
    }

    #[tokio::test]
    async fn a_running_pgsteer_tells_what_its_pages_serve() {
        let listener = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let target = Target::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let (_keep, snapshot) = watch::channel(Arc::new(sample::snapshot()));
        let pages = Pages {
            snapshot,
            stats: Arc::new(sample::stats()),
            clock: Clock::start(),
            heartbeat: Arc::default(),
            ready: http::ReadyPages::default(),
        };
        tokio::spawn(http::serve(listener, pages));
        let asked = ask(&target).await.unwrap();
        assert_eq!(asked.document.generation, 42);
        assert_eq!(serde_json::from_str::<Document>(&asked.text).unwrap(), asked.document);
    }
}
