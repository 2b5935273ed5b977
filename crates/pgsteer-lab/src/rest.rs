//! Requests to the REST API of a member's Patroni.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Patroni's answer. Only the status is reliable; the body is JSON for some requests.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }

    /// Returns the answer if its status is 2xx, otherwise an error with Patroni's own text.
    pub fn accepted(self, order: &str) -> Result<Self> {
        if !(200..300).contains(&self.status) {
            bail!("Patroni refuses {order}: {} {}", self.status, self.body.trim());
        }
        Ok(self)
    }
}

pub fn get(url: &str, limit: Duration) -> Result<Answer> {
    let answer = agent(limit).get(url).call();
    read(url, answer)
}

pub fn post(url: &str, body: &Value, limit: Duration) -> Result<Answer> {
    let answer = agent(limit).post(url).send(body.to_string());
    read(url, answer)
}

pub fn patch(url: &str, body: &Value, limit: Duration) -> Result<Answer> {
    let answer = agent(limit).patch(url).send(body.to_string());
    read(url, answer)
}

pub fn delete(url: &str, limit: Duration) -> Result<Answer> {
    let answer = agent(limit).delete(url).call();
    read(url, answer)
}

/// A new agent per request: no connection is kept, so that no answer predates an act. A proxy in
/// the environment is ignored, because it cannot reach the lab's addresses.
fn agent(limit: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

fn read(
    url: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer> {
    let mut answer = answer.with_context(|| format!("no answer from {url}"))?;
    Ok(Answer {
        status: answer.status().as_u16(),
        body: answer
            .body_mut()
            .read_to_string()
            .with_context(|| format!("an incomplete answer from {url}"))?,
    })
}
