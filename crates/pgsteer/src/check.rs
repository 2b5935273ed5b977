//! `pgsteer check`: one health check of a running pgsteer, as one line and one exit code.
//!
//! It is for keepalived's `vrrp_script`, Consul, HAProxy's `external-check` and shells. It requests the
//! health pages, so it takes milliseconds and returns their answer.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pgsteer_core::probe::{Probe, ProbeError};
use pgsteer_core::text::clean_to;
use pgsteer_wire::patroni::parse_status;

use crate::ask::{Credentials, Target};
use crate::diagnostic::in_one_line;
use crate::exchange::Answer;
use crate::http::UNKNOWN_HEADER;

/// The default check.
const DEFAULT: &str = "primary";

/// The maximum number of printed characters of the answer.
const LINE_CHARS_MAX: usize = 2_000;

/// The argument of HAProxy for a server without an address.
const NOT_USED: &str = "NOT_USED";

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name of a service or one of Patroni's health checks. The first one that exists is used.
    pub of: Vec<String>,
    /// The name of an address in `[vip]`, instead of all of `of`.
    pub vip: Option<String>,
    /// The member by name or address; the default is the local one.
    pub member: Option<String>,
}

/// The result.
#[derive(Debug)]
enum Outcome {
    Yes(String),
    No(String),
    /// The answer is not known.
    Unknown(String),
}

impl From<&Outcome> for ExitCode {
    fn from(outcome: &Outcome) -> ExitCode {
        ExitCode::from(match outcome {
            Outcome::Yes(_) => 0,
            Outcome::No(_) => 1,
            Outcome::Unknown(_) => 2,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Yes(why) => write!(f, "yes: {why}"),
            Outcome::No(why) => write!(f, "no: {why}"),
            Outcome::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

impl Question {
    /// The question of HAProxy's `external-check`, from its arguments (proxy address and port, server
    /// address and port) and its environment. The name of the proxy is used if it is that of a service or of
    /// a health check.
    pub fn of_haproxy(
        arguments: &[String],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Option<Question> {
        let [_, _, server, _] = arguments else { return None };
        let proxy = environment("HAPROXY_PROXY_NAME");
        Some(Question {
            of: proxy.into_iter().chain([DEFAULT.to_owned()]).collect(),
            vip: None,
            member: Some(server.clone())
                .filter(|server| server != NOT_USED)
                .or_else(|| environment("HAPROXY_SERVER_NAME")),
        })
    }

    /// The paths of the possible pages. The first page that exists has the answer.
    fn paths(&self) -> Vec<String> {
        if let Some(vip) = &self.vip {
            return vec![format!("/vips/{}", utf8_percent_encode(vip, NON_ALPHANUMERIC))];
        }
        let of_member = self.member.as_ref().map_or_else(String::new, |member| {
            format!("/members/{}", utf8_percent_encode(member, NON_ALPHANUMERIC))
        });
        let each = self.of.iter().flat_map(|of| {
            let service = utf8_percent_encode(of, NON_ALPHANUMERIC);
            let check = of.trim_start_matches('/');
            let check = Probe::read(check).is_ok().then(|| format!("{of_member}/{check}"));
            [(!of.is_empty()).then(|| format!("{of_member}/services/{service}")), check]
        });
        each.flatten().collect()
    }

    /// Why no page has the answer.
    fn why_no_page(&self) -> String {
        if let Some(vip) = &self.vip {
            return format!("there is no [vip.{vip}] in the configuration there");
        }
        let mistake = |of: &String| match Probe::read(of.trim_start_matches('/')) {
            Ok(_) | Err(ProbeError::Path(_)) => None,
            Err(mistake) => Some(mistake.to_string()),
        };
        self.of.iter().find_map(mistake).unwrap_or_else(|| {
            let of = self.of.join("` nor `");
            format!("`{of}` is neither a service there nor one of Patroni's health checks")
        })
    }
}

/// Requests the check at `http_url`, and prints the answer in one line.
pub fn run(
    http_url: &str,
    credentials: &Credentials,
    question: &Question,
    limit: Duration,
) -> ExitCode {
    let target = Target::parse(http_url, credentials);
    let outcome = match target.and_then(|target| ask(&target, question, limit)) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Unknown(in_one_line(&error)),
    };
    // If stdout is closed the exit code is the only answer.
    let _ = writeln!(io::stdout(), "{outcome}");
    ExitCode::from(&outcome)
}

fn ask(target: &Target, question: &Question, limit: Duration) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let asking = async {
        for path in question.paths() {
            let Answer { status, headers, body, .. } = target.get(&path, limit).await?;
            // This is Patroni, which answers any path, and its answer has another meaning.
            if parse_status(false, &body).is_ok() {
                let why = anyhow!("a Patroni answers there, not a pgsteer");
                return Err(target.not_asked(&why).into());
            }
            let answer = String::from_utf8_lossy(&body);
            let line =
                clean_to(answer.lines().next().unwrap_or_default(), LINE_CHARS_MAX).into_owned();
            match status {
                StatusCode::NOT_FOUND => {}
                _ if headers.contains_key(UNKNOWN_HEADER) => return Ok(Outcome::Unknown(line)),
                StatusCode::OK => return Ok(Outcome::Yes(line)),
                StatusCode::SERVICE_UNAVAILABLE => return Ok(Outcome::No(line)),
                other => bail!("{line} (status {other})"),
            }
        }
        bail!("{}", question.why_no_page())
    };
    let outcome = runtime.block_on(asking);
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(of: &[&str], member: Option<&str>) -> Vec<String> {
        let of = of.iter().map(|of| (*of).to_owned()).collect();
        Question { of, vip: None, member: member.map(str::to_owned) }.paths()
    }

    #[test]
    fn a_service_is_looked_for_before_a_health_check() {
        assert_eq!(paths(&["primary"], None), ["/services/primary", "/primary"]);
        assert_eq!(paths(&["metrics"], None), ["/services/metrics"], "a page is no health check");
        assert!(paths(&[""], None).is_empty(), "a variable that was not set");
        assert_eq!(
            paths(&["/replica?lag=16MB"], Some("n/1")),
            ["/members/n%2F1/services/%2Freplica%3Flag%3D16MB", "/members/n%2F1/replica?lag=16MB"]
        );
    }

    #[test]
    fn a_health_check_with_a_mistake_differs_from_an_unknown_word() {
        let why =
            |of: &str| Question { of: vec![of.to_owned()], vip: None, member: None }.why_no_page();
        assert_eq!(why("replica?lag=x"), "`x` is not a valid lag: a size, as in lag=16MB");
        assert!(why("/replica?lga=1MB").starts_with("`lga` is not a parameter"));
        assert!(
            why("replcia?lag=x")
                .ends_with("neither a service there nor one of Patroni's health checks")
        );
    }

    #[test]
    fn haproxys_arguments_name_the_member_and_its_proxy_the_service() {
        let environment = |name: &str| match name {
            "HAPROXY_PROXY_NAME" => Some("read".to_owned()),
            "HAPROXY_SERVER_NAME" => Some("n2".to_owned()),
            _ => None,
        };
        let asked = |server: &str| {
            let arguments = ["10.0.0.5", "5000", server, "5432"].map(str::to_owned);
            Question::of_haproxy(&arguments, environment).unwrap()
        };
        assert_eq!(asked("10.0.0.12").member.as_deref(), Some("10.0.0.12"));
        assert_eq!(asked("NOT_USED").member.as_deref(), Some("n2"));
        assert_eq!(asked("NOT_USED").of, ["read", "primary"]);
        assert_eq!(Question::of_haproxy(&[], environment), None);
    }
}
