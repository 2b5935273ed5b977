//! The probe timer of a source: when its next request is due.
//!
//! The engine sets the pace in the plan. A shorter pace or a new address of the member makes the
//! next request due at once. While all members are healthy, requests to all members are due at the
//! same moments. The process then wakes up four times a second and not once for each member and
//! source.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::names::Endpoint;
use pgsteer_core::plan::{Ask, Pace};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Gone;
use crate::clock::Clock;

/// The shortest pace, so that no pace makes a source send requests in a closed loop.
const PACE_MIN: Duration = Duration::from_millis(1);

/// Intervals of at least this length end at whole multiples of it, so the first one is a little
/// shorter.
const TOGETHER: Duration = Duration::from_millis(250);

/// Waits until the next request of one source to one member is due.
#[derive(Clone)]
pub struct ProbeTimer {
    ask: watch::Receiver<Ask>,
    of: fn(&Pace) -> Duration,
    clock: Clock,
    pace: Duration,
    address: MemberAddress,
    /// When the last request was due; none before the first.
    last: Option<Instant>,
    /// Intervals are shortened at random.
    has_jitter: bool,
}

/// Jitter shortens an interval by up to this part of it.
const JITTER_PART: u64 = 10;

/// The addresses of a member.
#[derive(Clone, PartialEq, Eq)]
struct MemberAddress {
    postgres: Endpoint,
    patroni_url: Option<Arc<str>>,
}

impl ProbeTimer {
    /// The timer of the source whose pace `of` reads from the plan.
    pub fn new(
        mut ask: watch::Receiver<Ask>,
        of: fn(&Pace) -> Duration,
        clock: Clock,
    ) -> ProbeTimer {
        let now = ask.borrow_and_update().clone();
        let pace = of(&now.pace).max(PACE_MIN);
        ProbeTimer {
            ask,
            of,
            clock,
            pace,
            address: MemberAddress::of(&now),
            last: None,
            has_jitter: false,
        }
    }

    /// Same as [`ProbeTimer::new`], with intervals that are randomly up to a tenth shorter and do not end
    /// at common moments. For requests to a server that several pgsteers probe.
    pub fn with_jitter(self) -> ProbeTimer {
        ProbeTimer { has_jitter: true, ..self }
    }

    /// The current entry of the plan for the member.
    pub fn ask(&self) -> Ask {
        self.ask.borrow().clone()
    }

    /// The pace as last read from the plan.
    pub fn pace(&self) -> Duration {
        self.pace
    }

    /// Waits until the next request is due: one pace after the last one, or at once if the plan
    /// hastens it. Cancel safe.
    pub async fn due(&mut self) -> Result<(), Gone> {
        self.wait(|pace| pace).await
    }

    /// Same as [`ProbeTimer::due`], with `gap` instead of the pace.
    pub async fn due_after(&mut self, gap: Duration) -> Result<(), Gone> {
        self.wait(|_| gap).await
    }

    /// Same as [`ProbeTimer::due`], but at least `gap` after the last request if `gap` is longer than the
    /// pace.
    pub async fn due_no_sooner_than(&mut self, gap: Duration) -> Result<(), Gone> {
        // Rounding ends a long interval up to this much early.
        let rounded = if gap < TOGETHER { gap } else { gap + TOGETHER };
        self.wait(|pace| if gap > pace { rounded } else { pace }).await
    }

    /// Waits until the member's address differs from the address at the last request.
    pub async fn moved(&mut self) -> Result<(), Gone> {
        while self.address.is_of(&self.ask.borrow_and_update()) {
            self.ask.changed().await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Makes the next request due at once.
    pub fn hasten(&mut self) {
        self.last = None;
    }

    /// Waits until `until` and ignores changes of the plan.
    pub async fn pause(&mut self, until: Instant) -> Result<(), Gone> {
        let gone = async { while self.ask.changed().await.is_ok() {} };
        tokio::select! {
            () = sleep_until(until) => Ok(()),
            () = gone => Err(Gone),
        }
    }

    /// Waits until the plan changes for this member; the next request is then due.
    pub async fn changed(&mut self) -> Result<(), Gone> {
        self.ask.changed().await.map_err(|_| Gone)?;
        self.look();
        self.last = None;
        Ok(())
    }

    async fn wait(&mut self, gap: impl Fn(Duration) -> Duration) -> Result<(), Gone> {
        let chance = RandomState::new().build_hasher().finish();
        while !self.look() {
            let Some(last) = self.last else { break };
            tokio::select! {
                () = sleep_until(self.after(last, gap(self.pace), chance)) => break,
                changed = self.ask.changed() => changed.map_err(|_| Gone)?,
            }
        }
        self.last = Some(Instant::now());
        Ok(())
    }

    /// Returns the end of an interval.
    fn after(&self, last: Instant, gap: Duration, chance: u64) -> Instant {
        let due = last + gap;
        if self.has_jitter {
            let most = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX) / JITTER_PART;
            return due - Duration::from_micros(chance % (most + 1));
        }
        if gap < TOGETHER {
            return due;
        }
        let over = self.clock.moment(due.into_std()).since_start().as_nanos() % TOGETHER.as_nanos();
        due - Duration::from_nanos(u64::try_from(over).unwrap_or(0))
    }

    /// Reads the plan. Returns true if it hastens the next request.
    fn look(&mut self) -> bool {
        let ask = self.ask.borrow_and_update();
        let pace = (self.of)(&ask.pace).max(PACE_MIN);
        let moved = !self.address.is_of(&ask);
        let hastened = moved || pace < self.pace;
        self.pace = pace;
        if moved {
            self.address = MemberAddress::of(&ask);
        }
        hastened
    }
}

impl MemberAddress {
    fn of(ask: &Ask) -> MemberAddress {
        MemberAddress { postgres: ask.postgres.clone(), patroni_url: ask.patroni_url.clone() }
    }

    fn is_of(&self, ask: &Ask) -> bool {
        self.postgres == ask.postgres && self.patroni_url == ask.patroni_url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(tether_ms: u64) -> Ask {
        Ask {
            postgres: Endpoint::new("127.0.0.1", 5432).unwrap(),
            addresses: Vec::new(),
            new_host: None,
            patroni_url: None,
            poolers: Default::default(),
            has_tether: true,
            pace: Pace {
                tether: Duration::from_millis(tether_ms),
                patroni: Duration::from_secs(1),
                pooler: Duration::from_secs(1),
            },
        }
    }

    fn clock() -> Clock {
        Clock::since(Instant::now().into_std())
    }

    async fn waited(timer: &mut ProbeTimer) -> u128 {
        let start = Instant::now();
        timer.due().await.unwrap();
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn with_jitter_gaps_are_up_to_a_tenth_shorter_and_differ() {
        let (_plan, seen) = watch::channel(ask(1_000));
        let mut timer = ProbeTimer::new(seen, |pace| pace.tether, Clock::start()).with_jitter();
        let mut gaps = std::collections::BTreeSet::new();
        timer.due().await.unwrap();
        for _ in 0..20 {
            let before = Instant::now();
            timer.due().await.unwrap();
            let gap = before.elapsed();
            // The paused clock of the tests advances in steps of a millisecond.
            assert!((900..=1_001).contains(&gap.as_millis()), "{gap:?}");
            gaps.insert(gap);
        }
        assert!(gaps.len() > 5, "{gaps:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_question_is_due_at_once_and_the_next_a_pace_later() {
        let (_plan, plan_rx) = watch::channel(ask(250));
        let mut timer = ProbeTimer::new(plan_rx, |pace| pace.tether, clock());
        assert_eq!(waited(&mut timer).await, 0);
        assert_eq!(waited(&mut timer).await, 250);
    }

    #[tokio::test(start_paused = true)]
    async fn calm_intervals_fall_together_and_none_is_late() {
        let clock = clock();
        tokio::time::sleep(Duration::from_millis(90)).await;
        let (_plan, plan_rx) = watch::channel(ask(250));
        let mut tether = ProbeTimer::new(plan_rx.clone(), |pace| pace.tether, clock);
        let mut patroni = ProbeTimer::new(plan_rx, |pace| pace.patroni, clock);
        waited(&mut tether).await;
        waited(&mut patroni).await;
        assert_eq!(waited(&mut tether).await, 160);
        assert_eq!(waited(&mut tether).await, 250);
        assert_eq!(waited(&mut patroni).await, 500);
        assert_eq!(waited(&mut patroni).await, 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_pace_means_ask_now_and_a_longer_one_does_not() {
        let (plan, plan_rx) = watch::channel(ask(250));
        let mut timer = ProbeTimer::new(plan_rx, |pace| pace.tether, clock());
        waited(&mut timer).await;
        plan.send_replace(ask(5));
        assert_eq!(waited(&mut timer).await, 0);
        assert_eq!(waited(&mut timer).await, 5);
        plan.send_replace(ask(250));
        assert_eq!(waited(&mut timer).await, 245);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_that_shortens_while_waiting_ends_the_wait() {
        let (plan, plan_rx) = watch::channel(ask(1000));
        let mut timer = ProbeTimer::new(plan_rx, |pace| pace.tether, clock());
        waited(&mut timer).await;
        let hasten = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            plan.send_replace(ask(5));
        };
        let (ms, ()) = tokio::join!(waited(&mut timer), hasten);
        assert_eq!(ms, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_moved_is_asked_at_once() {
        let (plan, plan_rx) = watch::channel(ask(250));
        let mut timer = ProbeTimer::new(plan_rx, |pace| pace.tether, clock());
        waited(&mut timer).await;
        plan.send_modify(|ask| ask.postgres = ask.postgres.with_port(5433));
        assert_eq!(waited(&mut timer).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_haste_cuts_a_pause_short() {
        let (plan, plan_rx) = watch::channel(ask(250));
        let mut timer = ProbeTimer::new(plan_rx, |pace| pace.tether, clock());
        waited(&mut timer).await;
        let start = Instant::now();
        let hasten = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            plan.send_replace(ask(5));
        };
        let (paused, ()) = tokio::join!(timer.pause(start + Duration::from_millis(260)), hasten);
        assert!(paused.is_ok());
        assert_eq!(start.elapsed().as_millis(), 260);
        assert_eq!(waited(&mut timer).await, 0);
        drop(plan);
        assert!(timer.pause(Instant::now() + Duration::from_secs(1)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_is_gone_ends_it() {
        let (plan, plan_rx) = watch::channel(ask(250));
        let mut timer = ProbeTimer::new(plan_rx, |pace| pace.tether, clock());
        waited(&mut timer).await;
        drop(plan);
        assert!(timer.due().await.is_err());
    }
}
