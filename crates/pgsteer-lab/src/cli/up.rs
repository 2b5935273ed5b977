//! `pgsteer-lab up`: starts a lab and keeps it until a signal ends it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result};
use clap::Args;
use pgsteer_lab::{ACTS_HELP, APP, CHECK, Lab, LabOptions, Network, PatroniVersion};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::channel;

#[derive(Debug, Args)]
pub struct Up {
    /// Which Patroni: debian (the package) or pip (a newer one).
    #[arg(long, default_value = "pip")]
    patroni: PatroniVersion,
    /// The members' network: loopback, or namespaces (needs root)
    #[arg(long, default_value = "loopback")]
    network: Network,
    /// The number of members, 1 to 7
    #[arg(long, default_value_t = 3)]
    members: usize,
}

impl Up {
    pub fn run(self) -> Result<()> {
        let end = EndOrder::listen()?;
        let lab = Arc::new(Lab::start(LabOptions {
            patroni: self.patroni,
            network: self.network,
            members: self.members,
            ..LabOptions::default()
        })?);
        channel::serve(&lab)?;
        println!("{}", lab.directory()?);
        println!("{}", front_door(&lab)?);
        println!("From another terminal: pgsteer-lab act ACT\n{ACTS_HELP}");
        println!("Ctrl-C ends and removes everything.");
        end.wait();
        drop(lab);
        Ok(())
    }
}

/// The commands that start a pgsteer in front of the lab and connect to it.
fn front_door(lab: &Lab) -> Result<String> {
    let first = |flag: &str, urls: Vec<String>| {
        urls.first().map(|url| format!(" --{flag} {url}")).unwrap_or_default()
    };
    let (patroni, etcd) = (first("patroni", lab.patroni_urls()), first("etcd", lab.etcd_urls()));
    let password_file = lab.check_password_file()?;
    Ok(format!(
        "To start pgsteer for it:\n  \
           pgsteer run{patroni}{etcd} \\\n    \
             --check-user {CHECK} --check-password-file {}\n  \
           writes    psql postgresql://{APP}:{APP}@127.0.0.1:5000/{APP}\n  \
           reads     psql postgresql://{APP}:{APP}@127.0.0.1:5001/{APP}\n  \
           status    pgsteer status      or open http://127.0.0.1:7000 in a browser\n",
        password_file.display()
    ))
}

/// Ctrl-C, or a signal of the system to end.
pub struct EndOrder {
    waiting: Arc<AtomicBool>,
    arrived: mpsc::Receiver<()>,
}

impl EndOrder {
    /// Before [`EndOrder::wait`] is called, a signal ends the process at once, and the guardian
    /// removes everything.
    pub fn listen() -> Result<Self> {
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
        let waiting = Arc::new(AtomicBool::new(false));
        let (sender, arrived) = mpsc::channel();
        let is_waiting = waiting.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if !is_waiting.load(Ordering::Relaxed) {
                    std::process::exit(128 + signal);
                }
                // The receiver is gone if the end is already in progress.
                let _ = sender.send(());
            }
        });
        Ok(Self { waiting, arrived })
    }

    pub fn wait(&self) {
        self.waiting.store(true, Ordering::Relaxed);
        // It fails only if the signal thread has died, and then no signal can arrive.
        let _ = self.arrived.recv();
    }
}
