//! The deadlines of an attempt: first byte, first token, idle, total.
//!
//! Registering a timer costs more than looking at a clock, and an idle deadline moves with each
//! chunk. So the timer is set to the earliest deadline and looks again when it rings; moving a
//! deadline later never touches it.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

use super::near_timer;
use crate::runtime::drain_slots;

/// A stream without output for so long gets a header and an SSE comment: Node's fetch gives up
/// after five minutes, proxies often after 30 or 60 s.
pub const QUIET: Duration = Duration::from_secs(15);

/// A wait that is longer than this has an eye on the app, too.
const MOMENT: Duration = Duration::from_millis(250);

pub enum DeadlineKind {
    /// The wait is longer than [`MOMENT`]: check whether the app is still connected.
    Look,
    /// What is awaited now took too long.
    Phase,
    /// The whole request did.
    Total,
    /// Nothing was sent to the app for [`QUIET`].
    Quiet,
}

pub struct Deadlines {
    timer: Option<Pin<Box<Sleep>>>,
    total: Instant,
    phase: Instant,
    look: Option<Instant>,
    /// Nothing was sent to the app for [`MOMENT`]: a disconnect would not show by itself.
    looking: bool,
    quiet: Option<Instant>,
}

impl Deadlines {
    pub fn new(total: Duration, is_stream: bool) -> Self {
        near_timer::keep();
        let now = Instant::now();
        let quiet = is_stream.then(|| now + QUIET);
        Self {
            timer: None,
            total: now + total,
            phase: now + total,
            look: None,
            looking: false,
            quiet,
        }
    }

    /// The end of the whole request.
    pub fn deadline(&self) -> std::time::Instant {
        self.total.into_std()
    }

    /// What is awaited from now on may take `limit`.
    pub fn expect_within(&mut self, now: Instant, limit: Duration) {
        self.expect_before(now, now + limit);
    }

    /// What is awaited from now on must come before `deadline`.
    pub fn expect_before(&mut self, now: Instant, deadline: Instant) {
        self.phase = deadline;
        if !self.looking {
            self.look.get_or_insert(now + MOMENT);
        }
    }

    /// What is awaited from now on ends by itself.
    pub fn expect_by_itself(&mut self, now: Instant) {
        self.expect_before(now, self.total);
    }

    /// Whether to have an eye on the app.
    pub fn is_looking(&self) -> bool {
        self.looking
    }

    /// Something was sent to the app; the next write shows whether it is still connected.
    pub fn wrote(&mut self, now: Instant) {
        if let Some(quiet) = &mut self.quiet {
            *quiet = now + QUIET;
        }
        self.looking = false;
        self.look = Some(now + MOMENT);
    }

    /// The app is gone and its answer is read on: for a limited time, without keep-alives.
    pub fn drain(&mut self, now: Instant) {
        self.total = self.total.min(now + drain_slots::TIME);
        self.quiet = None;
        self.look = None;
        self.looking = true;
    }

    /// Waits for the next deadline that passes. Cancel-safe.
    pub async fn alarm(&mut self) -> DeadlineKind {
        loop {
            self.timer().await;
            let now = Instant::now();
            let passed = |deadline: Option<Instant>| deadline.is_some_and(|at| now >= at);
            if passed(Some(self.total)) {
                return DeadlineKind::Total;
            }
            if passed(Some(self.phase)) {
                return DeadlineKind::Phase;
            }
            if passed(self.quiet) {
                self.quiet = Some(now + QUIET);
                return DeadlineKind::Quiet;
            }
            if passed(self.look) {
                self.look = None;
                self.looking = true;
                return DeadlineKind::Look;
            }
        }
    }

    /// The timer, set to the next deadline if it has rung or would ring later than that.
    fn timer(&mut self) -> Pin<&mut Sleep> {
        let next = [self.look, self.quiet].into_iter().flatten();
        let due = next.fold(self.total.min(self.phase), Instant::min);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due || (timer.is_elapsed() && timer.deadline() != due) {
            timer.as_mut().reset(due);
        }
        timer.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_rings_first_and_a_moved_one_does_not() {
        let mut watchdog = Deadlines::new(Duration::from_secs(600), true);
        let start = Instant::now();
        watchdog.expect_within(start, Duration::from_secs(5));
        assert!(matches!(watchdog.alarm().await, DeadlineKind::Look));
        assert_eq!(start.elapsed().as_millis(), 250);
        assert!(matches!(watchdog.alarm().await, DeadlineKind::Phase));
        assert_eq!(start.elapsed().as_secs(), 5);
        watchdog.expect_within(Instant::now(), Duration::from_secs(100));
        assert!(matches!(watchdog.alarm().await, DeadlineKind::Quiet));
        assert_eq!(start.elapsed().as_secs(), 15);
        tokio::time::advance(Duration::from_secs(10)).await;
        watchdog.wrote(Instant::now());
        assert!(!watchdog.is_looking());
        watchdog.expect_within(Instant::now(), Duration::from_secs(1000));
        assert!(matches!(watchdog.alarm().await, DeadlineKind::Look));
        assert!(watchdog.is_looking());
        assert!(matches!(watchdog.alarm().await, DeadlineKind::Quiet));
        assert_eq!(start.elapsed().as_secs(), 40, "15 s after the last write");
        while !matches!(watchdog.alarm().await, DeadlineKind::Total) {}
        assert_eq!(start.elapsed().as_secs(), 600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_has_no_deadline_but_that_of_the_request() {
        let mut watchdog = Deadlines::new(Duration::from_secs(600), false);
        let start = Instant::now();
        watchdog.expect_within(start, Duration::from_millis(300));
        watchdog.expect_by_itself(start);
        // The thread is not let run for longer than the pause takes.
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(matches!(watchdog.alarm().await, DeadlineKind::Look));
        assert!(matches!(watchdog.alarm().await, DeadlineKind::Total));
        assert_eq!(start.elapsed().as_secs(), 600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_short_and_longer_than_no_other_deadline() {
        let start = Instant::now();
        for (total, expected) in [(600, 30), (20, 20)] {
            let mut watchdog = Deadlines::new(Duration::from_secs(total), true);
            let begun = Instant::now();
            watchdog.drain(begun);
            watchdog.expect_within(begun, Duration::from_secs(10));
            assert!(matches!(watchdog.alarm().await, DeadlineKind::Phase), "no comments, no looks");
            assert_eq!(begun.elapsed().as_secs(), 10);
            watchdog.expect_within(Instant::now(), Duration::from_secs(100));
            assert!(matches!(watchdog.alarm().await, DeadlineKind::Total));
            assert_eq!(begun.elapsed().as_secs(), expected);
        }
        assert_eq!(start.elapsed().as_secs(), 50);
    }
}
