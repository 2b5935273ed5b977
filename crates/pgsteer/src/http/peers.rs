//! The other pgsteers of `peers` in `[http]`: each is asked for its status, and is a line of the page.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pgsteer_core::settings::PeersConfig;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::ask::{Credentials, Target};
use crate::clock::Clock;
use crate::stats::Stats;
use crate::status::document::Peer;
use crate::status::receive::{Received, ask};
use crate::status::{sentence, several};

/// The pause between an answer and the next request.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// The other pgsteers, with their URLs as configured.
///
/// # Errors
/// A URL cannot be used, or the file of the token or of the authorities cannot be read.
pub fn targets(peers: &PeersConfig) -> Result<Vec<(String, Target)>> {
    let PeersConfig { urls, token_file, ca_file } = peers;
    let (token_file, ca_file) = (token_file.clone(), ca_file.clone());
    let login_remedy = "set peers_token_file in [http]";
    let credentials = Credentials { token_file, login_file: None, ca_file, login_remedy };
    let target = |url: &String| {
        let target = Target::parse(url, &credentials).context("`peers` of [http]")?;
        Ok((url.clone(), target))
    };
    urls.iter().map(target).collect()
}

/// Asks all of them until it is dropped.
pub async fn ask_all(targets: Vec<(String, Target)>, stats: Arc<Stats>, clock: Clock) {
    let mut tasks = JoinSet::new();
    stats.peers.begin(targets.iter().map(|(url, _)| url.clone()));
    for (index, (url, target)) in targets.into_iter().enumerate() {
        let stats = Arc::clone(&stats);
        tasks.spawn(async move {
            loop {
                let peer = Peer { url: url.clone(), ..read(ask(&target).await) };
                stats.peers.set(index, clock.now(), peer);
                sleep(ASK_EVERY).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

fn read(answer: Result<Received>) -> Peer {
    let document = match answer {
        Ok(received) => received.document,
        Err(error) => return Peer { error: Some(format!("{error:#}")), ..Peer::default() },
    };
    let state = sentence::state(&document);
    let cluster = document.clusters.first();
    Peer {
        version: Some(document.version.clone()),
        cluster: cluster.map(|cluster| cluster.name.clone()),
        write: cluster.and_then(several::writer),
        state: Some(state.level.as_str().to_owned()),
        sentence: Some(state.sentence),
        ..Peer::default()
    }
}
