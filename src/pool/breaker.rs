//! Whether a provider is sick: a circuit breaker over its answers.
//!
//! Closed, requests pass. When enough of the last minute's attempts failed it opens: other targets
//! serve, and a probe asks every few seconds whether somebody is there. Then it is half open: one
//! request tries, and its answer closes or opens it again. A breaker only decides which target comes
//! first; where nothing else is left a sick provider is asked all the same.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::rest::{jitter, millis};

/// What is looked at: six times ten seconds.
const BUCKETS: usize = 6;
const BUCKET_MS: u64 = 10_000;
/// Fewer attempts tell nothing: it never opens on one error, or on the second key of one request.
const ENOUGH: u32 = 4;
/// It opens when every second attempt, or more, failed.
const SICK_OF: (u32, u32) = (1, 2);
/// From opening, or the last probe, to the next one; up to a second less.
const PROBE_PAUSE: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    Closed,
    Open,
    HalfOpen,
}

impl Circuit {
    const ALL: [Circuit; 3] = [Circuit::Closed, Circuit::Open, Circuit::HalfOpen];

    fn from_code(code: u32) -> Self {
        Self::ALL.into_iter().find(|circuit| *circuit as u32 == code).unwrap_or(Circuit::Closed)
    }
}

/// Who may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Free,
    /// As the one that finds out; it must report, whatever comes of it.
    Trial,
    /// Another target first.
    No,
}

#[derive(Debug, Default)]
pub struct Breaker {
    circuit: AtomicU32,
    /// When it opened last.
    since: AtomicU64,
    /// When the next probe is due.
    due: AtomicU64,
    /// A probe, or a half-open circuit's one request, is under way.
    on_trial: AtomicBool,
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Default)]
struct Bucket {
    /// Which ten seconds since the clock began, counted from one.
    turn: AtomicU64,
    answered: AtomicU32,
    failed: AtomicU32,
}

impl Breaker {
    pub fn circuit(&self) -> Circuit {
        Circuit::from_code(self.circuit.load(Relaxed))
    }

    /// Milliseconds since it opened, unless it is closed.
    pub fn sick_for_ms(&self, now: Instant) -> Option<u64> {
        let sick = self.circuit() != Circuit::Closed;
        sick.then(|| millis(now).saturating_sub(self.since.load(Relaxed)))
    }

    pub fn pass(&self) -> Pass {
        match self.circuit() {
            Circuit::Closed => Pass::Free,
            Circuit::HalfOpen if self.begin_trial() => Pass::Trial,
            Circuit::HalfOpen | Circuit::Open => Pass::No,
        }
    }

    fn begin_trial(&self) -> bool {
        self.on_trial.compare_exchange(false, true, Relaxed, Relaxed).is_ok()
    }

    /// A trial that told nothing: the app left.
    pub fn end_trial(&self) {
        self.on_trial.store(false, Relaxed);
    }

    /// An answer, or a refusal that only a healthy provider gives. Whether that closed it.
    pub fn answered(&self, was_trial: bool, now: Instant) -> bool {
        if was_trial {
            return self.close();
        }
        self.bucket(now).answered.fetch_add(1, Relaxed);
        false
    }

    /// Whether that opened it.
    pub fn failed(&self, was_trial: bool, now: Instant) -> bool {
        self.bucket(now).failed.fetch_add(1, Relaxed);
        let closed = self.circuit() == Circuit::Closed;
        let opens = if closed { self.is_sick(now) } else { was_trial };
        if opens {
            self.open(now);
        }
        opens && closed
    }

    /// Opens it, here or because another gateway found out.
    pub fn open(&self, now: Instant) {
        if self.circuit() == Circuit::Closed {
            self.since.store(millis(now), Relaxed);
        }
        self.put_off(now);
        self.circuit.store(Circuit::Open as u32, Relaxed);
    }

    /// Whether it was not closed.
    pub fn close(&self) -> bool {
        for bucket in &self.buckets {
            bucket.turn.store(0, Relaxed);
        }
        self.on_trial.store(false, Relaxed);
        self.circuit.swap(Circuit::Closed as u32, Relaxed) != Circuit::Closed as u32
    }

    /// Whether a probe is due; who is told so has to say what came of it.
    pub fn try_probe(&self, now: Instant) -> bool {
        self.circuit() == Circuit::Open
            && millis(now) >= self.due.load(Relaxed)
            && self.begin_trial()
    }

    /// Somebody is there: one request may try.
    pub fn half_open(&self) {
        let (open, half) = (Circuit::Open as u32, Circuit::HalfOpen as u32);
        let _ = self.circuit.compare_exchange(open, half, Relaxed, Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    /// Nobody is there: the next probe comes later.
    pub fn put_off(&self, now: Instant) {
        let pause = PROBE_PAUSE - jitter(Duration::from_secs(1));
        self.due.store(millis(now + pause), Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    fn bucket(&self, now: Instant) -> &Bucket {
        let turn = millis(now) / BUCKET_MS + 1;
        let bucket = &self.buckets[turn as usize % BUCKETS];
        // Two that come at once may lose a count between them, which changes nothing.
        if bucket.turn.load(Relaxed) != turn && bucket.turn.swap(turn, Relaxed) != turn {
            bucket.answered.store(0, Relaxed);
            bucket.failed.store(0, Relaxed);
        }
        bucket
    }

    fn is_sick(&self, now: Instant) -> bool {
        let turn = millis(now) / BUCKET_MS + 1;
        let recent = |bucket: &&Bucket| bucket.turn.load(Relaxed) + BUCKETS as u64 > turn;
        let (mut failed, mut all) = (0, 0);
        for bucket in self.buckets.iter().filter(recent) {
            let here = bucket.failed.load(Relaxed);
            failed += here;
            all += here + bucket.answered.load(Relaxed);
        }
        all >= ENOUGH && failed * SICK_OF.1 >= all * SICK_OF.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        super::super::rest::start_clock();
        Instant::now() + Duration::from_secs(100)
    }

    #[test]
    fn it_opens_when_every_second_attempt_of_enough_failed_and_never_on_one_error() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            assert!(!breaker.failed(false, start()));
            assert_eq!(breaker.pass(), Pass::Free);
        }
        assert!(breaker.failed(false, start()), "the fourth");
        assert_eq!((breaker.circuit(), breaker.pass()), (Circuit::Open, Pass::No));
        assert!(!breaker.failed(false, start()), "late failures are no news");
        let busy = Breaker::default();
        for _ in 0..100 {
            busy.answered(false, start());
            busy.answered(false, start());
            assert!(!busy.failed(false, start()), "one in three");
        }
    }

    #[test]
    fn what_is_older_than_a_minute_is_forgotten() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.failed(false, start());
        }
        assert!(!breaker.failed(false, start() + Duration::from_secs(61)));
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }

    #[test]
    fn a_probe_lets_one_request_try_and_its_answer_decides() {
        let (breaker, mut now) = (Breaker::default(), start());
        breaker.open(now);
        assert!(!breaker.try_probe(now), "not at once");
        now += PROBE_PAUSE;
        assert!(breaker.try_probe(now) && !breaker.try_probe(now), "one at a time");
        breaker.put_off(now);
        now += PROBE_PAUSE;
        assert!(breaker.try_probe(now));
        breaker.half_open();
        assert_eq!((breaker.pass(), breaker.pass()), (Pass::Trial, Pass::No));
        breaker.end_trial();
        assert_eq!(breaker.pass(), Pass::Trial);
        assert!(!breaker.failed(true, now), "it was not closed");
        assert_eq!(breaker.circuit(), Circuit::Open);
        now += PROBE_PAUSE;
        assert!(breaker.try_probe(now));
        breaker.half_open();
        assert_eq!(breaker.pass(), Pass::Trial);
        assert!(!breaker.answered(false, now), "an answer from before decides nothing");
        assert!(breaker.answered(true, now));
        assert_eq!(breaker.pass(), Pass::Free);
        assert!(!breaker.failed(false, now), "and it begins anew");
    }
}
