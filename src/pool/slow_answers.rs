//! Tells whether answers that do not come in time are one licence's, which asks for what takes long, or the provider's.
//!
//! A long answer in one piece takes longer than `first_byte` allows, however well its provider is. So of a licence that is
//! alone with its timeouts, while others are answered, two within a minute count as faults and no more.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::Mutex;

use super::backoff::millis;

const WITHIN_MS: u64 = 60_000;
/// Timeouts that count, of a licence that is alone with them.
const COUNTED: usize = 2;
/// Timeouts that are remembered.
const MOST: usize = 8;

#[derive(Debug, Default)]
pub struct SlowAnswers {
    /// The licence that was answered last, and when.
    last: AtomicU64,
    last_at: AtomicU64,
    /// When another one was answered before it.
    other_at: AtomicU64,
    /// Licences that waited in vain, and when; the latest last.
    timeouts: Mutex<Vec<(u64, u64)>>,
}

impl SlowAnswers {
    /// A licence was answered. Hot; what two that come at once lose between them changes little.
    pub fn answered(&self, license: u64, now: Instant) {
        let now = millis(now).max(1);
        if self.last.load(Relaxed) != license {
            self.other_at.store(self.last_at.load(Relaxed), Relaxed);
            self.last.store(license, Relaxed);
        }
        self.last_at.store(now, Relaxed);
    }

    /// A licence waited in vain. Whether that says nothing of the provider.
    pub fn timed_out(&self, license: u64, now: Instant) -> bool {
        let now = millis(now).max(1);
        let is_recent = |at: u64| at > 0 && now.saturating_sub(at) <= WITHIN_MS;
        let mut timeouts = self.timeouts.lock();
        timeouts.retain(|(_, at)| is_recent(*at));
        let own = timeouts.iter().filter(|(known, _)| *known == license).count();
        let is_alone = own == timeouts.len();
        // Those of one licence displace none of another's.
        let oldest = match own >= COUNTED {
            true => timeouts.iter().position(|(known, _)| *known == license),
            false => (timeouts.len() == MOST).then_some(0),
        };
        if let Some(oldest) = oldest {
            timeouts.remove(oldest);
        }
        timeouts.push((license, now));
        let last = if self.last.load(Relaxed) == license { &self.other_at } else { &self.last_at };
        is_alone && own >= COUNTED && is_recent(last.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn start() -> Instant {
        super::super::backoff::start_clock();
        Instant::now() + Duration::from_secs(1000)
    }

    #[test]
    fn one_licence_alone_says_little_while_others_are_answered() {
        let (slow, now) = (SlowAnswers::default(), start());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(!(0..9).any(|_| slow.timed_out(1, now)), "no licence was answered");
        slow.answered(1, later(100));
        assert!(!(0..9).any(|_| slow.timed_out(1, later(100))), "no other licence was");
        slow.answered(2, later(200));
        slow.answered(1, later(201));
        let told: Vec<bool> = (0..4).map(|_| slow.timed_out(1, later(202))).collect();
        assert_eq!(told, [false, false, true, true]);
        assert!(!slow.timed_out(3, later(203)), "another one waits in vain, too");
        assert!(!slow.timed_out(1, later(204)));
        assert!(!(0..9).any(|_| slow.timed_out(1, later(300))), "others were answered long ago");
    }
}
