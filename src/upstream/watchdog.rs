//! One timer for all deadlines of a request.
//!
//! Registering a timer costs more than looking at a clock, and an idle deadline moves with each
//! chunk. So the timer is set to the earliest deadline, or 15 s ahead, and looks again when it
//! rings; moving a deadline later never touches it.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// A stream without output for so long gets a header and an SSE comment: Node's fetch gives up
/// after five minutes, proxies often after 30 or 60 s.
pub const QUIET: Duration = Duration::from_secs(15);

pub enum Alarm {
    /// What is awaited now took too long.
    Phase,
    /// The whole request did.
    Total,
    /// The app has heard nothing for [`QUIET`].
    Quiet,
}

pub struct Watchdog {
    timer: Option<Pin<Box<Sleep>>>,
    total: Instant,
    phase: Instant,
    quiet: Option<Instant>,
}

impl Watchdog {
    pub fn new(total: Duration, is_stream: bool) -> Self {
        let now = Instant::now();
        let quiet = is_stream.then(|| now + QUIET);
        Self { timer: None, total: now + total, phase: now + total, quiet }
    }

    /// What is awaited from now on may take `limit`.
    pub fn expect_within(&mut self, limit: Duration) {
        self.phase = Instant::now() + limit;
    }

    /// What is awaited must come before `deadline`.
    pub fn expect_before(&mut self, deadline: Instant) {
        self.phase = deadline;
    }

    /// The app was sent something.
    pub fn heard(&mut self) {
        if let Some(quiet) = &mut self.quiet {
            *quiet = Instant::now() + QUIET;
        }
    }

    /// Output flows: the provider's own pace is the stream's from now on.
    pub fn stop_comments(&mut self) {
        self.quiet = None;
    }

    /// Waits for the next deadline that passes. Cancel-safe.
    pub async fn alarm(&mut self) -> Alarm {
        loop {
            let now = Instant::now();
            if now >= self.total {
                return Alarm::Total;
            }
            if now >= self.phase {
                return Alarm::Phase;
            }
            if self.quiet.is_some_and(|quiet| now >= quiet) {
                self.heard();
                return Alarm::Quiet;
            }
            let next = self.total.min(self.phase).min(self.quiet.unwrap_or(self.total));
            self.timer_at(next.min(now + QUIET)).await;
        }
    }

    /// The timer, brought forward to `due` if it would ring later.
    fn timer_at(&mut self, due: Instant) -> Pin<&mut Sleep> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.is_elapsed() || timer.deadline() > due {
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
        let mut watchdog = Watchdog::new(Duration::from_secs(600), true);
        let start = Instant::now();
        watchdog.expect_within(Duration::from_secs(5));
        assert!(matches!(watchdog.alarm().await, Alarm::Phase));
        assert_eq!(start.elapsed().as_secs(), 5);
        watchdog.expect_within(Duration::from_secs(100));
        assert!(matches!(watchdog.alarm().await, Alarm::Quiet));
        assert_eq!(start.elapsed().as_secs(), 15);
        watchdog.stop_comments();
        watchdog.expect_within(Duration::from_secs(1000));
        assert!(matches!(watchdog.alarm().await, Alarm::Total));
        assert_eq!(start.elapsed().as_secs(), 600);
    }
}
