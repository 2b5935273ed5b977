//! `pgsteer status`: requests the status document of running pgsteers and prints it.

pub mod document;
pub mod human;
pub mod picture;
pub mod receive;
pub mod sentence;
pub mod several;
pub mod stamp;
pub mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use self::document::Document;
use self::picture::draw;
use self::receive::{Received, ask};
use self::several::Answer;
use self::table::Ink;
use crate::ask::{Credentials, Target};
use crate::diagnostic::{in_lines, report};

/// How often `--watch` prints the document.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The maximum number of URLs. All are asked at the same time.
const URLS_MAX: usize = 200;

/// The meaning of the exit code, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// The pgsteers that are asked, with their URLs as written.
#[derive(Debug)]
enum Targets {
    One(Target),
    Several(Vec<(String, Target)>),
}

impl Targets {
    fn parse(urls: &[String], credentials: &Credentials) -> Result<Targets> {
        ensure!(urls.len() <= URLS_MAX, "there are {} URLs, more than {URLS_MAX}", urls.len());
        let parse = |url: &String| Ok((url.clone(), Target::parse(url, credentials)?));
        let mut all: Vec<(String, Target)> = urls.iter().map(parse).collect::<Result<_>>()?;
        match (all.len(), all.pop()) {
            (1, Some((_, only))) => Ok(Targets::One(only)),
            (_, last) => {
                all.extend(last);
                Ok(Targets::Several(all))
            }
        }
    }
}

/// What is printed.
#[derive(Debug)]
struct Page {
    text: String,
    outcome: Outcome,
}

/// Requests the document of each URL and prints it: one as tables, several as one table, with `json` as
/// JSON, with `watch` every second until Ctrl-C.
pub fn run(urls: &[String], credentials: &Credentials, json: bool, watch: bool) -> ExitCode {
    let targets = Targets::parse(urls, credentials);
    match targets.and_then(|targets| ask_and_print(&targets, json, watch)) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            report(&error, "shown");
            Outcome::NoAnswer.into()
        }
    }
}

fn ask_and_print(targets: &Targets, json: bool, watch: bool) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        match watch {
            true => watch_until_interrupted(targets, json).await,
            false => show_once(targets, json).await,
        }
    });
    // A name that is still being resolved must not keep the command from ending.
    runtime.shutdown_background();
    outcome
}

/// Asks the targets. Of several, each one that does not answer has a line in the page.
async fn page(targets: &Targets, json: bool) -> Result<Page> {
    match targets {
        Targets::One(target) => {
            let received = ask(target).await?;
            let outcome = outcome(&received.document);
            Ok(Page { text: shown(&received, json, ink()), outcome })
        }
        Targets::Several(targets) => {
            let answers = ask_all(targets).await?;
            let outcomes = answers.iter().map(|answer| match &answer.received {
                Ok(received) => outcome(&received.document),
                Err(_) => Outcome::NoAnswer,
            });
            let outcome = outcomes.max().unwrap_or(Outcome::NoAnswer);
            let text = match json {
                true => several::json(&answers),
                false => several::draw(&answers, ink()),
            };
            Ok(Page { text, outcome })
        }
    }
}

/// Asks all of them at the same time, each with its own time limit.
async fn ask_all(targets: &[(String, Target)]) -> Result<Vec<Answer>> {
    let mut asking = JoinSet::new();
    for (number, (url, target)) in targets.iter().cloned().enumerate() {
        asking.spawn(async move { (number, Answer { url, received: ask(&target).await }) });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asking.join_next().await {
        answers.push(answer.context("a request was aborted")?);
    }
    answers.sort_by_key(|(number, _)| *number);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

async fn show_once(targets: &Targets, json: bool) -> Result<Outcome> {
    let page = page(targets, json).await?;
    print(&page.text)?;
    Ok(page.outcome)
}

async fn watch_until_interrupted(targets: &Targets, json: bool) -> Result<Outcome> {
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Outcome::NoAnswer;
    let redrawing = async {
        loop {
            ticks.tick().await;
            // The watch goes on: a pgsteer that is restarted answers again.
            let page = page(targets, json).await.unwrap_or_else(|error| Page {
                text: format!("{}\n", in_lines(&error)),
                outcome: Outcome::NoAnswer,
            });
            last = page.outcome;
            if print(&redrawn(&page.text, json)).is_err() {
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
pub fn ink() -> Ink {
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
    use hyper::StatusCode;

    use super::receive::read;
    use super::*;
    use crate::http::sample;

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

    #[test]
    fn one_url_is_shown_as_tables_and_more_as_one_table() {
        let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        assert!(matches!(
            Targets::parse(&urls(&["h:7000"]), &Credentials::default()),
            Ok(Targets::One(_))
        ));
        let several =
            Targets::parse(&urls(&["b:7000", "a:7000", "b:7000"]), &Credentials::default())
                .unwrap();
        let Targets::Several(all) = several else { panic!("{several:?}") };
        let names: Vec<&str> = all.iter().map(|(url, _)| url.as_str()).collect();
        assert_eq!(names, ["b:7000", "a:7000", "b:7000"]);
        let error = Targets::parse(&urls(&["h:7000"; URLS_MAX + 1]), &Credentials::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("201") && error.contains("200"), "{error}");
        assert!(Targets::parse(&urls(&["h:7000", "ftp://h"]), &Credentials::default()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn several_are_asked_at_the_same_time_and_the_worst_decides_the_exit_code() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = silent.local_addr().unwrap().to_string();
        let targets = Targets::parse(&vec![url; 3], &Credentials::default()).unwrap();
        let begin = tokio::time::Instant::now();
        let page = page(&targets, false).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
        assert_eq!(page.outcome, Outcome::NoAnswer);
        assert_eq!(page.text.matches("no whole answer within 5 s").count(), 3, "{}", page.text);
        assert!(Outcome::NoAnswer > Outcome::Trouble && Outcome::Trouble > Outcome::AllWell);
    }
}
