//! Decides whether a 403 is about the key or about the prompt.
//!
//! Providers answer 403 both for a key without permission and for a prompt they reject, with varying texts.
//! So one such answer makes its key doubtful: other keys are preferred until a probe has asked for the list
//! of models. A refused list counts against a key only if it was shown to the key before; otherwise
//! refusals of three licences in a row, with no answer in between, decide.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{backoff::millis, witnesses::Witnesses};

/// Interval between two probes of one doubt.
const PROBE_PAUSE: Duration = Duration::from_secs(5);
/// A key that is refused again and again though it is shown the list comes last for so long, doubling.
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Default)]
pub struct DoubtState {
    /// When it began; 0 while there is none.
    since: AtomicU64,
    inner: Mutex<Inner>,
    /// The list of models was shown to the key once.
    shown: AtomicBool,
    /// Consecutive doubts that the list did not confirm, without an answer in between.
    in_a_row: AtomicU32,
}

#[derive(Debug, Default)]
struct Inner {
    /// Licences that were refused, one after the other, without an answer between.
    witnesses: Witnesses,
    /// When the next probe is due; 0 while none is wanted.
    due: u64,
    /// Not before this.
    earliest: u64,
    /// A probe is under way.
    probed: bool,
    /// The list was refused since the key became doubtful.
    refused: bool,
    /// Until when the key comes last although the list is shown.
    until: u64,
}

impl Inner {
    fn is_proven(&self, shown: bool) -> bool {
        self.refused && (shown || self.witnesses.are_enough())
    }
}

impl DoubtState {
    /// Hot: nearly always there is none.
    pub fn holds(&self) -> bool {
        self.since.load(Relaxed) != 0
    }

    pub fn age_ms(&self, now: Instant) -> u64 {
        millis(now).saturating_sub(self.since.load(Relaxed))
    }

    /// The list of models was once shown to the key.
    pub fn was_shown(&self) -> bool {
        self.shown.load(Relaxed)
    }

    /// A request of this licence was refused. Whether that proves it.
    pub fn raise(&self, license: u64, now: Instant) -> bool {
        let now = millis(now).max(1);
        let mut inner = self.inner.lock();
        inner.witnesses.add(license, now, u64::MAX);
        if self.since.load(Relaxed) == 0 {
            self.since.store(now, Relaxed);
        }
        if !inner.refused && !inner.probed && inner.due == 0 {
            inner.due = now.max(inner.earliest);
        }
        inner.is_proven(self.was_shown())
    }

    /// Whether a probe is due; on `true` the caller has to report its result.
    pub fn try_probe(&self, now: Instant) -> bool {
        if !self.holds() {
            return false;
        }
        let now = millis(now);
        let mut inner = self.inner.lock();
        if inner.until != 0 && now >= inner.until {
            inner.until = 0;
            self.since.store(0, Relaxed);
        }
        let is_due = inner.due != 0 && now >= inner.due && !inner.probed;
        inner.probed |= is_due;
        if is_due {
            inner.earliest = now + PROBE_PAUSE.as_millis() as u64;
        }
        is_due
    }

    /// The list of models is shown to the key.
    pub fn shown(&self, now: Instant) {
        self.shown.store(true, Relaxed);
        if !self.holds() {
            return;
        }
        let mut inner = self.inner.lock();
        let times = self.in_a_row.fetch_add(1, Relaxed);
        *inner = Inner { earliest: inner.earliest, ..Inner::default() };
        if times == 0 {
            self.since.store(0, Relaxed);
        } else {
            let pause = SHORTEST.saturating_mul(1 << (times - 1).min(16)).min(LONGEST);
            inner.until = millis(now + pause);
        }
    }

    /// The list was refused, or there is none. Whether that confirms the doubt.
    pub fn refused(&self) -> bool {
        if !self.holds() {
            return false;
        }
        let mut inner = self.inner.lock();
        (inner.probed, inner.due, inner.refused) = (false, 0, true);
        inner.is_proven(self.was_shown())
    }

    /// The probe was inconclusive.
    pub fn put_off(&self, now: Instant) {
        let mut inner = self.inner.lock();
        (inner.probed, inner.due) = (false, millis(now + PROBE_PAUSE));
    }

    /// An answer came, an operator resumed the key, or the key was quarantined.
    pub fn lift(&self) {
        if self.holds() {
            let mut inner = self.inner.lock();
            *inner = Inner { earliest: inner.earliest, ..Inner::default() };
            self.since.store(0, Relaxed);
        }
    }

    /// An answer came: the count of consecutive doubts starts over.
    pub fn answered(&self) {
        self.lift();
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        super::super::backoff::start_clock();
        Instant::now() + Duration::from_secs(1000)
    }

    #[test]
    fn a_list_that_was_shown_and_is_refused_proves_it() {
        let (doubt, now) = (DoubtState::default(), start());
        assert!(!doubt.try_probe(now), "what is ready is not probed");
        assert!(!doubt.raise(1, now) && doubt.holds());
        assert!(doubt.try_probe(now) && !doubt.try_probe(now), "one probe at a time");
        doubt.shown(now);
        assert!(!doubt.holds(), "it was the request");
        assert!(!doubt.raise(2, now));
        assert!(!doubt.try_probe(now), "not again at once");
        let later = now + PROBE_PAUSE;
        assert!(doubt.try_probe(later) && doubt.refused());
    }

    #[test]
    fn without_a_list_three_licences_in_a_row_decide() {
        let (doubt, now) = (DoubtState::default(), start());
        for license in [1, 2, 3] {
            assert!(!doubt.raise(license, now), "the list was not asked for yet");
        }
        assert!(doubt.try_probe(now));
        doubt.put_off(now);
        assert!(!doubt.try_probe(now) && doubt.try_probe(now + PROBE_PAUSE));
        assert!(doubt.refused(), "three, and the list says nothing against it");
        doubt.lift();
        assert!(!doubt.raise(1, now) && !doubt.raise(1, now));
        assert!(doubt.try_probe(now + 3 * PROBE_PAUSE) && !doubt.refused());
        for _ in 0..9 {
            assert!(!doubt.raise(1, now) && !doubt.raise(2, now), "two licences are two prompts");
        }
        doubt.answered();
        assert!(!doubt.holds());
        assert!(!doubt.raise(3, now));
        assert!(doubt.try_probe(now + 9 * PROBE_PAUSE) && !doubt.refused());
        assert!(!doubt.raise(1, now) && doubt.raise(2, now));
    }

    #[test]
    fn a_key_that_is_shown_the_list_and_nothing_else_comes_last_for_longer_and_longer() {
        let (doubt, mut now) = (DoubtState::default(), start());
        for expected in [0, 30, 60, 120, 240, 480, 960, 1800, 1800] {
            assert!(!doubt.raise(1, now));
            assert!(doubt.try_probe(now));
            doubt.shown(now);
            let mut waited = 0;
            while doubt.holds() {
                waited += 10;
                assert!(!doubt.try_probe(now + Duration::from_secs(waited)));
            }
            assert_eq!(waited, expected);
            now += Duration::from_secs(waited) + PROBE_PAUSE;
        }
        doubt.answered();
        assert!(!doubt.raise(1, now) && doubt.try_probe(now));
        doubt.shown(now);
        assert!(!doubt.holds());
    }
}
