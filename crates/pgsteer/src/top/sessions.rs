//! The sessions at a member, asked for over the control socket while they are shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::state::Sessions;
use crate::control::client;
use crate::control::protocol::{Answer, FilterText, Request, SessionsAnswer};
use crate::diagnostic::in_one_line;

/// How often they are asked for.
const EVERY: Duration = Duration::from_secs(1);

/// Asks the pgsteer at `socket` for the sessions at the member that is `wanted`, at once and each second.
/// Without a socket the answer is why there is none.
pub fn answers(
    socket: Option<PathBuf>,
    mut wanted: watch::Receiver<Option<String>>,
) -> mpsc::Receiver<Sessions> {
    let (sender, answers) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let member = wanted.borrow_and_update().clone();
            let Some(member) = member else {
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let answer = match &socket {
                Some(socket) => ask(socket, &member).await,
                None => Err(not_here(&member)),
            };
            if sender.send(Sessions { member, answer }).await.is_err() {
                return;
            }
            // Another member is asked about at once.
            let _ = timeout(EVERY, wanted.changed()).await;
        }
    });
    answers
}

async fn ask(socket: &Path, member: &str) -> Result<SessionsAnswer, String> {
    let socket = socket.to_owned();
    let filter = FilterText { member: Some(member.to_owned()), ..FilterText::default() };
    // The client blocks for as long as pgsteer may take.
    let asking = move || client::ask(&socket, &Request::Sessions { filter });
    match tokio::task::spawn_blocking(asking).await {
        Ok(Ok(Answer::Sessions(sessions))) => Ok(sessions),
        Ok(Ok(Answer::Refused { error } | Answer::Unclear { error })) => Err(error),
        Ok(Ok(_)) => Err("the answer is of another command".to_owned()),
        Ok(Err(error)) => Err(in_one_line(&error)),
        Err(error) => Err(error.to_string()),
    }
}

fn not_here(member: &str) -> String {
    format!(
        "sessions come from the control socket, which only programs on pgsteer's own machine reach: run \
         `pgsteer top` or `pgsteer sessions --member {member}` there, or name a socket with --socket"
    )
}
