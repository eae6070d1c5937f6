//! Cooldown after a rate limit, quarantine after errors, with jitter. Times are milliseconds on a monotonic
//! clock, so that a stepped wall clock changes nothing.

#[cfg(test)]
use super::clock::BOOT;
pub(super) use super::clock::millis;
pub use super::clock::start_clock;
use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::health::QuarantineReason;

/// Cooling without a stated time: 1 s, doubling to this.
const LONGEST_COOLING: Duration = Duration::from_secs(60);
/// Longer times stated by a provider are cut to a day.
const LONGEST_STATED: Duration = Duration::from_secs(24 * 3600);
/// `retry-after: 0` still means "not now".
const SHORTEST_STATED: Duration = Duration::from_millis(100);
/// Between two probes of a credential, doubling.
const PROBES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(30 * 60));
/// Until an account without money, or at its daily limit, is tried again, doubling.
const TRIALS: (Duration, Duration) = (Duration::from_secs(30 * 60), Duration::from_secs(6 * 3600));

fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

fn believed(stated: Duration) -> Duration {
    stated.clamp(SHORTEST_STATED, LONGEST_STATED)
}

/// A pause after a rate limit: ends by itself.
#[derive(Debug, Default)]
pub struct Cooldown {
    until: AtomicU64,
    since: AtomicU64,
    /// Pauses in a row without an answer between.
    in_a_row: AtomicU32,
}

impl Cooldown {
    pub fn left_ms(&self, now: Instant) -> u64 {
        // Hot: nearly always nothing cools, and then no clock is needed.
        match self.until.load(Relaxed) {
            0 => 0,
            until => until.saturating_sub(millis(now)),
        }
    }

    /// `stated`: the pause that the provider asked for; without it the pause doubles from one second.
    pub fn begin(&self, stated: Option<Duration>, now: Instant) {
        // Answers to requests that were open when the pause began change nothing.
        let unstated = if self.left_ms(now) > 0 {
            Duration::from_secs(1)
        } else {
            let times = self.in_a_row.fetch_add(1, Relaxed);
            doubled((Duration::from_secs(1), LONGEST_COOLING), times)
        };
        let pause = stated.map_or(unstated, believed);
        if self.left_ms(now) == 0 {
            self.since.store(millis(now), Relaxed);
        }
        self.until.fetch_max(millis(now + pause).max(1), Relaxed);
    }

    /// Milliseconds of its last pause so far.
    pub fn age_ms(&self, now: Instant) -> u64 {
        millis(now).saturating_sub(self.since.load(Relaxed))
    }

    /// An answer came. One to a request from before the pause began does not end the row.
    pub fn answered(&self, now: Instant) {
        if self.in_a_row.load(Relaxed) > 0 && self.left_ms(now) == 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// On an operator's command. Whether it was in back-off since its last answer.
    pub fn lift(&self) -> bool {
        self.until.store(0, Relaxed);
        self.in_a_row.swap(0, Relaxed) > 0
    }
}

/// Rests until the key, or its account, has shown that it is sound again: to a probe where a request
/// would be wasted on it, else to one request that is let through when its time has come.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// 0 while there is none, else the reason's code.
    why: AtomicU32,
    since: AtomicU64,
    /// When it is tried again.
    due: AtomicU64,
    /// Quarantines in a row without an answer between.
    in_a_row: AtomicU32,
    /// A request is probing it.
    on_trial: AtomicBool,
    /// A probe is inconclusive, as the provider has no list of models: a request has to probe it.
    unprobed: AtomicBool,
}

impl Quarantine {
    /// Why it rests, and milliseconds until it is tried again.
    pub fn status(&self, now: Instant) -> Option<(QuarantineReason, u64)> {
        let why = QuarantineReason::from_code(self.why.load(Relaxed))?;
        Some((why, self.due.load(Relaxed).saturating_sub(millis(now))))
    }

    /// Milliseconds it has been resting.
    pub fn age_ms(&self, now: Instant) -> u64 {
        millis(now).saturating_sub(self.since.load(Relaxed))
    }

    /// `stated`: the end that the provider stated; without it the duration doubles.
    pub fn begin(&self, why: QuarantineReason, stated: Option<Duration>, now: Instant) {
        let known = self.status(now);
        // Answers to requests that were open when it began change nothing.
        let is_new = known.is_none_or(|(_, left)| left == 0);
        let times = match is_new {
            true => self.in_a_row.fetch_add(1, Relaxed),
            false => self.in_a_row.load(Relaxed).saturating_sub(1),
        };
        if known.is_none() {
            self.since.store(millis(now), Relaxed);
        }
        let rest = stated.map_or_else(|| unstated(why, times), believed);
        let due = millis(now + rest).max(1);
        if is_new {
            self.due.store(due, Relaxed);
        } else {
            self.due.fetch_max(due, Relaxed);
        }
        self.why.store(why.code(), Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    /// Whether the caller may be the one that finds out; it must end the trial, whatever comes of it.
    pub fn try_now(&self, now: Instant) -> bool {
        self.status(now).is_some_and(|(_, left)| left == 0)
            && self.on_trial.compare_exchange(false, true, Relaxed, Relaxed).is_ok()
    }

    /// Whether one request, not a probe, finds out.
    pub fn ends_by_request(&self, why: QuarantineReason) -> bool {
        !why.ends_by_probe() || self.unprobed.load(Relaxed)
    }

    /// There is nothing to probe: from now on requests find out.
    pub fn cannot_be_probed(&self) {
        self.unprobed.store(true, Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    /// The probe was inconclusive.
    pub fn end_trial(&self) {
        self.on_trial.store(false, Relaxed);
    }

    /// The probe was inconclusive or had the same result: the next one is delayed.
    pub fn put_off(&self, now: Instant) {
        if let Some((why, _)) = self.status(now) {
            self.begin(why, None, now);
        }
    }

    /// The key works, or an operator resumed it. Whether it was in quarantine. A probe does not reset the
    /// back-off: a key that may list models may still be refused for completions.
    pub fn lift(&self) -> bool {
        self.on_trial.store(false, Relaxed);
        self.why.swap(0, Relaxed) != 0
    }

    /// An answer came. Whether that ended the quarantine: only the answer to its own trial does.
    pub fn answered(&self, was_trial: bool) -> bool {
        if was_trial {
            self.in_a_row.store(0, Relaxed);
            return self.lift();
        }
        if self.in_a_row.load(Relaxed) > 0 && self.why.load(Relaxed) == 0 {
            self.in_a_row.store(0, Relaxed);
        }
        false
    }
}

/// From the second one on a little longer, so that gateways and keys don't try in step.
fn unstated(why: QuarantineReason, times: u32) -> Duration {
    let rest = doubled(if why.ends_by_probe() { PROBES } else { TRIALS }, times);
    if times == 0 { rest } else { rest + jitter(rest / 10) }
}

/// A number that looks random, from one that does not (the finaliser of SplitMix64).
pub(super) fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Something from zero to `most`.
pub fn jitter(most: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    most.mul_f64(RandomState::new().hash_one(0) as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        *BOOT + Duration::from_secs(1)
    }

    #[test]
    fn an_unstated_pause_doubles_until_an_answer_comes() {
        let cooling = Cooldown::default();
        let mut now = start();
        for expected in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            cooling.begin(None, now);
            assert_eq!(cooling.left_ms(now), expected);
            now += Duration::from_millis(expected);
        }
        cooling.answered(now);
        cooling.begin(None, now);
        assert_eq!(cooling.left_ms(now), 1000);
    }

    #[test]
    fn late_answers_of_the_same_burst_do_not_double_it() {
        let (cooling, quarantine) = (Cooldown::default(), Quarantine::default());
        for _ in 0..50 {
            cooling.begin(None, start());
            quarantine.begin(QuarantineReason::BadCredential, None, start());
        }
        assert_eq!(cooling.left_ms(start()), 1000);
        assert_eq!(quarantine.status(start()), Some((QuarantineReason::BadCredential, 30_000)));
    }

    #[test]
    fn a_stated_pause_is_kept_to_the_millisecond_and_never_shortened() {
        let cooling = Cooldown::default();
        cooling.begin(Some(Duration::from_millis(51_832)), start());
        cooling.begin(Some(Duration::from_millis(10)), start());
        assert_eq!(cooling.left_ms(start()), 51_832);
    }

    #[test]
    fn a_quarantine_doubles_and_ends_with_the_answer_to_its_own_trial() {
        for (why, first, longest) in [
            (QuarantineReason::BadCredential, 30_000, 1_800_000),
            (QuarantineReason::NoMoney, 1_800_000, 21_600_000),
            (QuarantineReason::DailyLimit, 1_800_000, 21_600_000),
        ] {
            let quarantine = Quarantine::default();
            let mut now = start();
            let mut expected = first;
            for _ in 0..10 {
                quarantine.begin(why, None, now);
                let left = quarantine.status(now).unwrap().1;
                assert!((expected..=expected * 11 / 10).contains(&left), "{left} for {expected}");
                assert!(!quarantine.try_now(now), "not before its time");
                now += Duration::from_millis(left);
                assert!(quarantine.try_now(now), "one may try");
                assert!(!quarantine.try_now(now), "and one only");
                expected = (expected * 2).min(longest);
            }
            assert!(!quarantine.answered(false), "an answer from before tells nothing");
            assert!(quarantine.answered(true));
            assert_eq!(quarantine.status(now), None);
            quarantine.begin(why, None, now);
            assert_eq!(quarantine.status(now), Some((why, first)));
        }
    }

    #[test]
    fn what_a_provider_states_is_believed_and_a_trial_that_tells_nothing_frees_the_place() {
        let quarantine = Quarantine::default();
        quarantine.begin(QuarantineReason::DailyLimit, Some(Duration::from_secs(7200)), start());
        assert_eq!(quarantine.status(start()), Some((QuarantineReason::DailyLimit, 7_200_000)));
        let later = start() + Duration::from_secs(7200);
        assert!(quarantine.try_now(later));
        quarantine.end_trial();
        assert!(quarantine.try_now(later));
        assert!(quarantine.lift());
        assert!(!quarantine.try_now(later));
    }
}
