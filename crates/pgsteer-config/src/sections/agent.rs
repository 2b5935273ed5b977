//! `[agent]`: the answers to HAProxy's agent-checks.

use std::collections::BTreeMap;

use pgsteer_core::names::ServiceName;
use pgsteer_core::question::Question;
use pgsteer_core::settings::{AgentConfig, ServiceConfig, Vocabulary, Weight};

use super::check;
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::Field;
use crate::key::{Command, Flag, Key, SectionKeys, Usual};
use crate::kinds::{Choice, ListenOrNone, Port, Text};
use crate::limits::AGENT_LISTEN;
use crate::origin::Origin;
use crate::plain;
use crate::problem::Problem;
use crate::range::{Seconds, Whole};
use crate::written::Draft;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "Answers to HAProxy's agent-checks. Without this section there are none. HAProxy sends the \
           service and the member in a line, by `agent-send \"read n2\\n\"`.",
    keys: &[&LISTEN, &VOCABULARY, &DEFAULT, &POOLER_PORT, &LINE_WAIT, &WEIGHT, &MAXCONN],
    at_restart: false,
};

/// The name of the section.
pub const SECTION: &str = "agent";

/// The address of the agent.
pub static LISTEN: Key<ListenOrNone> =
    Key::new(SECTION, "listen", ListenOrNone { usual: AGENT_LISTEN })
        .example("\"0.0.0.0:5555\"")
        .help("The address for HAProxy's agent-checks.")
        .flags(&[Flag::new(Command::Run, "--agent", "ADDR").help(
            "Address for HAProxy's agent-checks, or `none` [default: none; 0.0.0.0:5555 \
                 where the file has `[agent]`]",
        )]);

/// The words of the answers.
pub static VOCABULARY: Key<Choice<Vocabulary>> = Key::new(
    SECTION,
    "vocabulary",
    Choice {
        others: &[("up", "health"), ("maint", "admin")],
        ..Choice::new(
            Vocabulary::Health,
            &[Vocabulary::Health, Vocabulary::Admin, Vocabulary::Bare],
            Vocabulary::as_str,
        )
    },
)
.example("\"admin\"")
.help(
    "`health` sends up and down; `admin` sends ready and maint, so that a replica behind the write \
     port is shown as in maintenance, not as DOWN; `bare` is `health` without reasons, for scripts \
     that search the answer for `up`. The default is `health`, and `bare` where happac's -h or \
     PATRONI_HOST is given.",
)
.flags(&[Flag::new(Command::Agent, "--vocabulary", "WORDS").help(
    "Words of the answers: `health` (up, down), `admin` (ready, maint) or `bare` (up, down, without \
     reasons) [default: bare with --patroni-host, else health]",
)]);

/// The default question, for a client that sends none.
pub static DEFAULT: Key<Text<String>> = Key::new(
    SECTION,
    "default",
    Text::new("service or health check", plain::question).or("primary"),
)
.example("\"replica?lag=16MB\"")
.help(
    "The check for a client that sends no line: a service, or a health check of Patroni as \
     `primary` or `replica?lag=16MB`. `none`: every client has to send a line.",
)
.flags(&[Flag::new(Command::Agent, "--patroni-healthcheck", "CHECK")
    .short('k')
    .variable("PATRONI_ENDPOINT")
    .help(
        "The check for a client that sends no line: a service, or a health check of Patroni with \
         its parameters [default: primary]",
    )]);

static POOLER_PORT: Key<Port> = Key::new(SECTION, "pooler_port", Port)
    .example("6432")
    .unset("no pooler")
    .help(
        "The port of the PgBouncer beside each member. A health check is answered no unless that \
         PgBouncer leads to the member. A \
         service has its own pooler_port.",
    )
    .flags(&[Flag::new(Command::Agent, "--pgisready-port", "PORT")
        .short('r')
        .alias("pg-is-ready-port")
        .variable("PGISREADY_PORT")
        .help("Port of the PgBouncer that the member must be reached through [default: none]")]);

/// The time for a client's line.
pub static LINE_WAIT: Key<Seconds> = Key::new(
    SECTION,
    "line_wait_seconds",
    Seconds::within(0, 5_000).or(50),
)
.help(
    "The time that a client has for its line. After that it gets the answer for a client without a line. \
             0 is for clients that never send one.",
)
.flags(&[Flag::new(Command::Agent, "--line-wait", "SECONDS")
    .help("How long to wait for the line of a client that may send one [default: 0.05]")]);

static WEIGHT: Key<Choice<Weight>> = Key::new(
    SECTION,
    "weight",
    Choice::new(Weight::Unsaid, &[Weight::Unsaid, Weight::Lag, Weight::Sessions], Weight::as_str),
)
.example("\"lag\"")
.help(
    "The weight of a server: `none` sends no weight; `lag` goes from 100 % down to 1 % at the lag limit, \
     and `sessions` from 100 % for an idle server down to 1 % for a full one, which needs [check].",
);

static MAXCONN: Key<Whole> = Key::new(SECTION, "maxconn", Whole::within(1, 1_000_000))
    .example("100")
    .unset("HAProxy's own")
    .help("The maxconn of a server, if the agent is to send one.");

/// Returns the settings of the section; none if it is absent.
pub fn finish(
    draft: &Draft,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    errors: &mut ConfigErrors,
) -> Option<AgentConfig> {
    let keys = &draft.section(SECTION).given()?.value;
    let listen = keys.or_usual(&LISTEN)?;
    if draft.section(check::SECTION).is_absent() {
        check_weight(&keys.get(&WEIGHT), errors);
    }
    Some(AgentConfig {
        listen,
        vocabulary: keys.or_usual(&VOCABULARY),
        default: default(keys.get(&DEFAULT), services, errors),
        pooler_port: keys.get(&POOLER_PORT).value(),
        line_wait: keys.or_usual(&LINE_WAIT),
        awaits_first_line: true,
        weight: keys.or_usual(&WEIGHT),
        maxconn: keys.get(&MAXCONN).value().and_then(|max| u32::try_from(max).ok()),
    })
}

fn check_weight(weight: &Field<Weight>, errors: &mut ConfigErrors) {
    if let Some(given) = weight.given().filter(|given| given.value == Weight::Sessions) {
        errors.push(given.origin.clone(), Conflict::SessionsWithoutLogin);
    }
}

/// The default question for a client that sends no line; `none` requires every client to send one.
fn default(
    draft: Field<String>,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    errors: &mut ConfigErrors,
) -> Option<Question> {
    let origin = draft.given().map_or(Origin::Whole, |given| given.origin.clone());
    let text = draft.or(DEFAULT.kind.usual());
    if text == "none" {
        return None;
    }
    match Question::read(&text, |name| services.contains_key(name)) {
        Ok(Some(question)) => Some(question),
        read => {
            errors.push(origin, Problem::of_question(&text, read.err()));
            None
        }
    }
}
