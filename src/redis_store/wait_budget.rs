//! A waiting time that excludes the time in which this process did not run: on a busy machine a thread may be
//! suspended for longer than Redis takes.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, timeout_at};

/// A wait is counted by so much at a time.
const SLICE: Duration = Duration::from_millis(10);

/// What is left of less is over: timers are no finer.
const FINEST: Duration = Duration::from_millis(1);

/// How long something may be waited for, however often.
#[derive(Debug, Clone, Copy)]
pub struct WaitBudget {
    left: Duration,
}

impl WaitBudget {
    pub fn of(left: Duration) -> Self {
        Self { left }
    }

    pub fn is_over(&self) -> bool {
        self.left < FINEST
    }

    /// A part of it, which is taken off.
    pub fn part(&mut self, most: Duration) -> Self {
        let part = self.left.min(most);
        self.left -= part;
        Self { left: part }
    }

    /// Waits for `what`; `None` when patience is over first. An answer within the first slice costs
    /// none.
    pub async fn wait<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = pin!(what);
        while !self.is_over() {
            let slice = self.left.min(SLICE);
            let due = Instant::now() + slice;
            if let Ok(value) = timeout_at(due, &mut what).await {
                return Some(value);
            }
            self.left -= counted(slice, due.elapsed());
        }
        None
    }
}

/// What a slice counts that ended so much too late: a thread that was not let run did not wait. A part
/// counts all the same, so that every wait ends.
fn counted(slice: Duration, late: Duration) -> Duration {
    slice.saturating_sub(late).max(slice / 4)
}

#[cfg(test)]
mod tests {
    use std::time::Instant as Clock;

    use super::*;

    #[test]
    fn a_slice_that_ends_late_counts_less() {
        let ms = Duration::from_millis;
        for (late, expected) in [(0, 10_000), (4, 6_000), (8, 2_500), (500, 2_500)] {
            assert_eq!(counted(SLICE, ms(late)).as_micros(), expected, "{late}");
        }
    }

    #[tokio::test]
    async fn it_is_over_after_its_time_and_what_is_there_costs_nothing() {
        let mut patience = WaitBudget::of(Duration::from_millis(60));
        assert_eq!(patience.wait(async { 7 }).await, Some(7));
        let began = Clock::now();
        assert_eq!(patience.wait(std::future::pending::<()>()).await, None);
        assert!(patience.is_over() && began.elapsed() >= Duration::from_millis(60));
        assert_eq!(patience.wait(async { 7 }).await, None);
    }

    /// As on a machine that has other work: the thread stands still again and again.
    #[tokio::test]
    async fn standing_still_is_not_waiting() {
        let mut patience = WaitBudget::of(Duration::from_millis(100));
        let stalls = async {
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(60));
                tokio::task::yield_now().await;
            }
        };
        assert!(patience.wait(stalls).await.is_some(), "300 ms of standing still");
    }
}
