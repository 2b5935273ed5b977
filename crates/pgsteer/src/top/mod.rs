//! `pgsteer top`: the live state of a running pgsteer in a terminal.
//!
//! This file has the only input and output: the terminal, the requests, the signals and the clock. What is
//! shown is in `state`, how keys change it in `keys`, and how it looks in `draw`; these are pure.

mod columns;
mod curve;
mod draw;
mod explain;
mod keys;
mod look;
mod panels;
mod sessions;
mod state;
mod text;

use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pgsteer_core::settings::ControlConfig;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::keys::{Step, press, read};
use self::look::Look;
use self::state::State;
use crate::ask::Target;
use crate::cli::TopArgs;
use crate::diagnostic::{Diagnostic, in_one_line, report};
use crate::status::receive::{Received, ask};

/// How often pgsteer is asked, and how often the page is drawn without any news, for the ages.
const EVERY: Duration = Duration::from_secs(1);

/// The most events of the keyboard that wait to be handled. A longer paste waits in the terminal.
const EVENTS_MAX: usize = 64;

/// The exit code if nothing can be shown.
const FAILED: u8 = 2;

/// Shows the state of the pgsteer that `args` name until `q`, Ctrl-C or a signal.
pub fn run(args: TopArgs) -> ExitCode {
    match show(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, "shown");
            ExitCode::from(FAILED)
        }
    }
}

fn show(args: TopArgs) -> Result<()> {
    let target = Target::parse(&args.url, &args.ask.credentials())?;
    check_terminal()?;
    let look = Look::of_environment(args.no_color);
    let socket = socket(args.socket, &target);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let shown = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut screen = Screen::open()?;
        follow(&mut screen.terminal, &mut signals, Sources { target, socket }, look).await
    });
    // A name that is still being resolved must not keep the command from ending.
    runtime.shutdown_background();
    shown
}

/// The control socket: that of `flag`, or the usual one if pgsteer runs on this machine.
fn socket(flag: Option<PathBuf>, target: &Target) -> Option<PathBuf> {
    flag.or_else(|| target.is_this_machine().then(|| PathBuf::from(ControlConfig::SOCKET)))
}

/// # Errors
/// Standard input or output is no terminal, or one that cannot place its cursor.
fn check_terminal() -> Result<()> {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let what = match (io::stdout().is_terminal(), io::stdin().is_terminal(), is_dumb) {
        (false, ..) => "standard output is not a terminal",
        (_, false, _) => "standard input is not a terminal",
        (.., true) => "the terminal is of type `dumb`, which cannot place its cursor",
        (true, true, false) => return Ok(()),
    };
    let remedy = "use `pgsteer status`, or `pgsteer status --watch`".to_owned();
    bail!(Diagnostic::new(format!("pgsteer top: {what}"), Some(remedy)))
}

/// The terminal in raw mode on its alternate screen. It is restored at the end, and before the message
/// of a panic.
struct Screen {
    /// Its own drop writes an error to standard error, and panics where that terminal is gone.
    terminal: ManuallyDrop<DefaultTerminal>,
}

impl Screen {
    fn open() -> Result<Screen> {
        // A part of it may have succeeded.
        let terminal = ratatui::try_init().inspect_err(|_| restore());
        let terminal = terminal.context("cannot use the terminal")?;
        Ok(Screen { terminal: ManuallyDrop::new(terminal) })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        restore();
    }
}

fn restore() {
    // It fails where the terminal is gone, and then there is nothing to restore.
    let _ = ratatui::try_restore();
}

/// The signals that end the command.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Where the answers come from.
struct Sources {
    target: Target,
    socket: Option<PathBuf>,
}

async fn follow(
    terminal: &mut DefaultTerminal,
    signals: &mut Signals,
    sources: Sources,
    look: Look,
) -> Result<()> {
    let clock = Instant::now();
    let (pause, is_paused) = watch::channel(false);
    let mut answers = answers(sources.target, is_paused);
    let (want, wanted) = watch::channel(None);
    let mut sessions = sessions::answers(sources.socket, wanted);
    let mut events = keyboard();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = State::default();
    loop {
        let now = clock.elapsed();
        let mut scroll_max = 0;
        terminal
            .draw(|frame| scroll_max = draw::draw(frame, &state, look, now))
            .context("cannot write to the terminal")?;
        state.scroll = state.scroll.min(scroll_max);
        tokio::select! {
            () = signals.next() => return Ok(()),
            event = events.recv() => {
                // A new size needs nothing else: the page is drawn for the present size.
                let Some(event) = event else { bail!("the terminal cannot be read") };
                if read(&event).is_some_and(|key| press(&mut state, key) == Step::Quit) {
                    return Ok(());
                }
                pause.send_replace(state.is_paused);
                let of = state.wants_sessions_of().map(str::to_owned);
                want.send_if_modified(|wanted| std::mem::replace(wanted, of.clone()) != of);
            }
            Some(listed) = sessions.recv() => state.receive_sessions(listed),
            answer = answers.recv() => match answer {
                Some(Ok(received)) => state.receive(received.document, clock.elapsed()),
                Some(Err(error)) => state.fail(&in_one_line(&error)),
                None => bail!("the requests have ended"),
            },
            _ = ticks.tick() => {}
        }
    }
}

/// The answers to a request each second, except while the page is paused.
fn answers(target: Target, is_paused: watch::Receiver<bool>) -> mpsc::Receiver<Result<Received>> {
    let (sender, answers) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let is_paused = *is_paused.borrow();
            if !is_paused && sender.send(ask(&target).await).await.is_err() {
                return;
            }
        }
    });
    answers
}

/// Events of the terminal, read by a thread of their own: reading blocks.
fn keyboard() -> mpsc::Receiver<Event> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    events
}
