//! The commands of an operator: `drain`, `undrain`, `sessions`, `end-sessions`, `explain` and `upgrade`.

mod table;

use std::io::{self, Write as _};
use std::process::ExitCode;

use super::client::ask;
use super::protocol::{
    Answer, DrainRequest, DrainedAnswer, Explained, FilterText, Request, SessionsAnswer,
    UndrainedAnswer, UpgradedAnswer,
};
use crate::cli::{
    DrainArgs, EndSessionsArgs, ExplainArgs, FilterArgs, SessionsArgs, UndrainArgs, UpgradeArgs,
};
use crate::diagnostic::report;
use table::{ago, bytes, columns};

/// The exit code of a request that pgsteer refuses.
const EXIT_REFUSED: u8 = 1;
/// The exit code of a request that is wrong, or that no pgsteer answers.
const EXIT_NO_ANSWER: u8 = 2;

/// `pgsteer drain`.
pub fn drain(args: &DrainArgs) -> ExitCode {
    let request = Request::Drain(DrainRequest {
        member: args.member.clone(),
        service: args.service.clone(),
        lasts_seconds: (!args.forever).then(|| args.lasts().as_secs()),
        why: args.why.clone(),
        force: args.force,
    });
    run(&args.socket.socket, &request, |answer| match answer {
        Answer::Drained(drained) => Some(drained_text(drained, args)),
        _ => None,
    })
}

/// `pgsteer undrain`.
pub fn undrain(args: &UndrainArgs) -> ExitCode {
    let (member, service) = (args.member.clone(), args.service.clone());
    run(&args.socket.socket, &Request::Undrain { member, service }, |answer| match answer {
        Answer::Undrained(undrained) => Some(undrained_text(undrained)),
        _ => None,
    })
}

/// `pgsteer sessions`.
pub fn sessions(args: &SessionsArgs) -> ExitCode {
    let filter = filter(&args.filter, args.member.clone());
    run(&args.socket.socket, &Request::Sessions { filter }, |answer| match answer {
        Answer::Sessions(sessions) if args.json => json(sessions),
        Answer::Sessions(sessions) => Some(sessions_text(sessions)),
        _ => None,
    })
}

/// `pgsteer end-sessions`.
pub fn end_sessions(args: &EndSessionsArgs) -> ExitCode {
    let filter = filter(&args.filter, args.member.clone());
    run(&args.socket.socket, &Request::EndSessions { filter }, |answer| match answer {
        Answer::Ended { ended: 1 } => Some("1 session ended\n".to_owned()),
        Answer::Ended { ended } => Some(format!("{ended} sessions ended\n")),
        _ => None,
    })
}

/// `pgsteer explain`.
pub fn explain(args: &ExplainArgs) -> ExitCode {
    let request = Request::Explain { service: args.service.clone() };
    run(&args.socket.socket, &request, |answer| match answer {
        Answer::Explained(explained) if args.json => json(explained),
        Answer::Explained(explained) => Some(explained_text(explained)),
        _ => None,
    })
}

/// `pgsteer upgrade`.
pub fn upgrade(args: &UpgradeArgs) -> ExitCode {
    let program = match args.binary.as_ref().map(std::path::absolute).transpose() {
        Ok(program) => program,
        Err(error) => {
            report(&anyhow::Error::from(error).context("--binary"), "upgraded");
            return ExitCode::from(EXIT_NO_ANSWER);
        }
    };
    run(&args.socket.socket, &Request::Upgrade { program }, |answer| match answer {
        Answer::Upgraded(UpgradedAnswer { pid, moved, took_ms }) => Some(format!(
            "process {pid} has taken over after {took_ms:.0} ms, with {moved} clients and sessions\n"
        )),
        _ => None,
    })
}

/// Sends the request and prints what `text` makes of the answer.
fn run(
    socket: &std::path::Path,
    request: &Request,
    text: impl FnOnce(&Answer) -> Option<String>,
) -> ExitCode {
    let answer = match ask(socket, request) {
        Ok(answer) => answer,
        Err(error) => {
            report(&error, "done");
            return ExitCode::from(EXIT_NO_ANSWER);
        }
    };
    let (error, code) = match &answer {
        Answer::Refused { error } => (error.clone(), EXIT_REFUSED),
        Answer::Unclear { error } => (error.clone(), EXIT_NO_ANSWER),
        _ => match text(&answer) {
            Some(text) => {
                // A closed stdout is not an error.
                let _ = write!(io::stdout(), "{text}");
                return ExitCode::SUCCESS;
            }
            None => ("the answer is of another command".to_owned(), EXIT_NO_ANSWER),
        },
    };
    report(&anyhow::anyhow!(error), "done");
    ExitCode::from(code)
}

fn json<T: serde::Serialize>(answer: &T) -> Option<String> {
    serde_json::to_string_pretty(answer).ok().map(|text| format!("{text}\n"))
}

fn filter(args: &FilterArgs, member: Option<String>) -> FilterText {
    FilterText {
        member,
        service: args.service.clone(),
        user: args.user.clone(),
        database: args.database.clone(),
        client: args.client.clone(),
        idle_longer_seconds: args.idle_longer.map(|idle| idle.as_secs_f64()),
    }
}

fn of_service(service: Option<&String>) -> String {
    service.map(|service| format!(" for service {service}")).unwrap_or_default()
}

fn not_stored(why: Option<&String>) -> String {
    why.map(|why| format!("not stored, a restart of pgsteer forgets it: {why}\n"))
        .unwrap_or_default()
}

fn drained_text(drained: &DrainedAnswer, args: &DrainArgs) -> String {
    let DrainedAnswer { member, service, until, in_force_after_ms, .. } = drained;
    let until = match until {
        None => "until `pgsteer undrain`".to_owned(),
        Some(until) if args.until.is_none() => {
            format!("until {until} (one hour by default; --until 10m or --forever)")
        }
        Some(until) => format!("until {until}"),
    };
    let mut text = format!(
        "{member} is drained{} {until}, in force after {in_force_after_ms} ms\n\
         its sessions continue: `pgsteer sessions --member {member}` lists them, `pgsteer \
         end-sessions {member}` ends them\n",
        of_service(service.as_ref()),
    );
    if !drained.not_drained.is_empty() {
        let services = drained.not_drained.join(", ");
        text.push_str(&format!("if it is promoted, it serves {services}; --force prevents that\n"));
    }
    text + &not_stored(drained.not_stored.as_ref())
}

fn undrained_text(undrained: &UndrainedAnswer) -> String {
    let UndrainedAnswer { member, service, open, in_force_after_ms, .. } = undrained;
    let open = match open.is_empty() {
        true => "it is not open for any service; `pgsteer explain SERVICE` shows why".to_owned(),
        false => format!("open for {}", open.join(", ")),
    };
    let stored = not_stored(undrained.not_stored.as_ref());
    format!(
        "{member} is not drained{} any more, in force after {in_force_after_ms} ms: {open}\n{stored}",
        of_service(service.as_ref()),
    )
}

fn sessions_text(answer: &SessionsAnswer) -> String {
    const HEADINGS: [&str; 9] =
        ["client", "user", "database", "member", "service", "since", "idle", "in/out", "tls"];
    let or_dash = |text: Option<&String>| text.map_or("-", String::as_str).to_owned();
    let rows = answer.sessions.iter().map(|session| {
        [
            or_dash(session.client.as_ref()),
            or_dash(session.user.as_ref()),
            or_dash(session.database.as_ref()),
            session.member.clone(),
            session.service.clone(),
            session.since.clone(),
            ago(session.idle_seconds),
            format!("{}/{}", bytes(session.bytes_in), bytes(session.bytes_out)),
            if session.tls { "yes" } else { "no" }.to_owned(),
        ]
    });
    let mut text = columns(&HEADINGS, &rows.collect::<Vec<_>>());
    let total = answer.sessions.len() + answer.omitted;
    text.push_str(&match total {
        1 => "1 session".to_owned(),
        total => format!("{total} sessions"),
    });
    if answer.omitted > 0 {
        text.push_str(&format!(", {} of them are not shown", answer.omitted));
    }
    text.push('\n');
    text
}

fn explained_text(explained: &Explained) -> String {
    let chosen: Vec<&str> = explained
        .members
        .iter()
        .filter(|member| member.chosen)
        .map(|member| member.member.as_str())
        .collect();
    let open = match chosen.is_empty() {
        true => "no member is open, clients wait".to_owned(),
        false => format!("open: {}", chosen.join(", ")),
    };
    let mut text = format!("service {} requires a {}; {open}\n", explained.service, explained.role);
    for member in &explained.members {
        let reason = member.reason.iter().map(|reason| format!(": {reason}"));
        let reason: String = reason.collect();
        let choice = if member.chosen { "chosen" } else { "not chosen" };
        let age = ago(member.gate_age_seconds);
        let name = &member.member;
        text.push_str(&format!("\n{name}  {choice}, {} for {age}{reason}\n", member.gate));
        if let Some(advice) = &member.advice {
            text.push_str(&format!("    what would change it: {advice}\n"));
        }
        let facts = member.facts.iter().map(|fact| {
            let age = fact.age_seconds.map(|age| format!("{} ago", ago(age)));
            [format!("    {}", fact.source), age.unwrap_or_default(), fact.text.clone()]
        });
        text.push_str(&columns(&[], &facts.collect::<Vec<_>>()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{ExplainedFact, ExplainedMember, SessionLine};
    use super::*;

    #[test]
    fn sessions_are_a_table() {
        let line = |client: &str, user: Option<&str>, tls| SessionLine {
            client: Some(client.to_owned()),
            user: user.map(str::to_owned),
            database: user.map(|_| "shop".to_owned()),
            member: "n2".to_owned(),
            service: "read".to_owned(),
            since: "2026-11-28T04:00:00Z".to_owned(),
            age_seconds: 100.0,
            idle_seconds: 75.5,
            bytes_in: 1_234,
            bytes_out: 5_678_901,
            tls,
        };
        let sessions =
            vec![line("10.0.0.5:4711", Some("app"), false), line("10.0.0.77:4", None, true)];
        insta::assert_snapshot!(sessions_text(&SessionsAnswer { sessions, omitted: 3 }));
    }

    #[test]
    fn an_explanation_has_the_facts_below_each_member() {
        let fact = |source: &str, age_seconds, text: &str| ExplainedFact {
            source: source.to_owned(),
            age_seconds,
            text: text.to_owned(),
        };
        let member = |name: &str, chosen, reason: Option<&str>| ExplainedMember {
            member: name.to_owned(),
            chosen,
            gate: if chosen { "open" } else { "draining" }.to_owned(),
            gate_age_seconds: 12.0,
            code: None,
            reason: reason.map(str::to_owned),
            advice: reason.map(|_| "pgsteer undrain ends the order".to_owned()),
            facts: vec![
                fact("member list", None, "listed at n2:5432"),
                fact("Patroni", Some(0.31), "running replica"),
            ],
        };
        let explained = Explained {
            service: "read".to_owned(),
            role: "replica".to_owned(),
            members: vec![
                member("n2", false, Some("drained by root until it is withdrawn")),
                member("n3", true, None),
            ],
        };
        insta::assert_snapshot!(explained_text(&explained));
    }
}
