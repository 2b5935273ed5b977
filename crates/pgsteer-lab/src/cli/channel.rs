//! The channel between a lab that is up and `pgsteer-lab act` in another terminal: one line as the
//! request, the outcome as the answer, over a socket in the lab's folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context, Result, bail};
use pgsteer_lab::Lab;

const SOCKET: &str = "act.sock";
const DONE: &str = "done";
const FAILED: &str = "failed";

/// Serves until the process ends. The threads hold the lab only during an act, so that the owner's
/// drop ends the lab.
pub fn serve(lab: &Arc<Lab>) -> Result<()> {
    let path = lab.folder().join(SOCKET);
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    let lab = Arc::downgrade(lab);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let lab = lab.clone();
            std::thread::spawn(move || {
                // The other side may have disconnected; then the answer has no reader.
                let _ = answer(&lab, stream);
            });
        }
    });
    Ok(())
}

/// Performs an act in the lab in `folder`.
pub fn ask(folder: &Path, act: &str) -> Result<String> {
    let mut stream = UnixStream::connect(folder.join(SOCKET))
        .with_context(|| format!("no lab is up in {}", folder.display()))?;
    writeln!(stream, "{act}").context("the lab has gone away")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("the lab has gone away")?;
    match text.split_once('\n') {
        Some((DONE, words)) => Ok(words.to_owned()),
        Some((_, words)) => bail!("{words}"),
        None => bail!("the lab ended during the act"),
    }
}

/// The folders of all running labs of this machine.
pub fn labs_up() -> Vec<PathBuf> {
    let mut parents = vec![PathBuf::from("/tmp"), std::env::temp_dir()];
    parents.dedup();
    parents
        .iter()
        .filter_map(|parent| std::fs::read_dir(parent).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| {
            let name = folder.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("pgsteer-lab-")
                && UnixStream::connect(folder.join(SOCKET)).is_ok()
        })
        .collect()
}

fn answer(lab: &Weak<Lab>, mut stream: UnixStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let Some(lab) = lab.upgrade() else {
        return Ok(());
    };
    let (verdict, words) = match lab.act(&line) {
        Ok(words) => (DONE, words),
        Err(error) => (FAILED, format!("{error:#}")),
    };
    drop(lab);
    write!(stream, "{verdict}\n{words}")
}
