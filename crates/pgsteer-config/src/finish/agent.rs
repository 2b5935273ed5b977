//! The agent: what it answers, and to whom.

use std::collections::BTreeMap;

use pgsteer_core::names::ServiceName;
use pgsteer_core::question::Question;
use pgsteer_core::settings::{AgentConfig, ServiceConfig, Vocabulary, Weight};

use crate::conflict::Conflict;
use crate::draft::{AgentDraft, Draft, Field};
use crate::error::{ConfigErrors, Place};
use crate::limits::{AGENT_DEFAULT, AGENT_LISTEN, LINE_WAIT};
use crate::problem::Problem;

/// The agent as meant; nothing where there is none.
pub fn finish(
    whole: &Draft,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    errors: &mut ConfigErrors,
) -> Option<AgentConfig> {
    let draft = &whole.agent.given()?.value;
    let listen = draft.listen.or(Some(AGENT_LISTEN))?;
    if whole.check.is_absent() {
        check_weight(draft, errors);
    }
    Some(AgentConfig {
        listen,
        vocabulary: draft.vocabulary.or(Vocabulary::Health),
        default: default(&draft.default, services, errors),
        pooler_port: draft.pooler_port.clone().value(),
        line_wait: draft.line_wait.or(LINE_WAIT.usual()),
        weight: draft.weight.or(Weight::Unsaid),
        maxconn: draft.maxconn.given().and_then(|given| u32::try_from(given.value).ok()),
    })
}

fn check_weight(draft: &AgentDraft, errors: &mut ConfigErrors) {
    if let Some(given) = draft.weight.given().filter(|given| given.value == Weight::Sessions) {
        errors.push(given.place.clone(), Conflict::SessionsWithoutLogin);
    }
}

/// What is answered where nothing is asked; `none` makes everybody ask.
fn default(
    draft: &Field<String>,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    errors: &mut ConfigErrors,
) -> Option<Question> {
    let text = draft.or(AGENT_DEFAULT.to_owned());
    if text == "none" {
        return None;
    }
    match Question::read(&text, |name| services.contains_key(name)) {
        Ok(Some(question)) => Some(question),
        read => {
            let place = draft.given().map_or(Place::Whole, |given| given.place.clone());
            errors.push(place, Problem::of_question(&text, read.err()));
            None
        }
    }
}
