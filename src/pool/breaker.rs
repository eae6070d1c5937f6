//! A circuit breaker over the answers of one account, or of a whole provider.
//!
//! Closed: requests pass. When enough of the last minute's attempts failed it opens: other keys and
//! targets serve, and a probe is sent every few seconds until it succeeds. Then it is half open: one request
//! passes, and its result closes or opens the breaker again. The kind of fault that opened it decides what else
//! may pass: immediate faults cost a request little, so a request without another target may still try;
//! time-outs and failed connects would cost it its whole deadline, so only the probe may.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    backoff::{jitter, millis},
    firewall::Firewall,
    health::Streak,
    slow_answers::SlowAnswers,
};

/// What is looked at: six times ten seconds.
const BUCKETS: usize = 6;
const BUCKET_MS: u64 = 10_000;
/// With fewer attempts it never opens: not on one error, nor on the second key of one request.
const ENOUGH: u32 = 4;
/// It opens when every second attempt, or more, failed.
const SICK_OF: (u32, u32) = (1, 2);
/// From opening, or the beginning of the last probe, to the next one; up to a second less. With a probe
/// that takes its whole time (`upstream::probe`) a provider serves again within 5 s of its recovery.
const PROBE_PAUSE: Duration = Duration::from_secs(3);

/// What an attempt's fault cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Reported at once: a 5xx, a reset, a malformed answer.
    Quick,
    /// No answer in time, or no connection.
    Silent,
}

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

/// Whether a request may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerDecision {
    Free,
    /// As the one that finds out; it must report, whatever comes of it.
    Trial,
    /// Another target first.
    No,
}

#[derive(Debug, Default)]
pub struct Breaker {
    circuit: AtomicU32,
    /// Most of the faults that opened it last were silent ones.
    silent: AtomicBool,
    /// When it opened last.
    since: AtomicU64,
    /// When the next probe is due.
    due: AtomicU64,
    /// A probe, or a half-open circuit's one request, is under way.
    on_trial: AtomicBool,
    pub probes: Streak,
    buckets: [Bucket; BUCKETS],
    /// Of a provider's breaker.
    pub firewall: Firewall,
    /// The same.
    pub slow_answers: SlowAnswers,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Which ten seconds since the clock began, counted from one.
    turn: AtomicU64,
    answered: AtomicU32,
    failed: AtomicU32,
    /// Of those that failed.
    silent: AtomicU32,
}

/// The attempts of the last minute.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeWindow {
    pub all: u32,
    pub failed: u32,
    pub silent: u32,
}

impl OutcomeWindow {
    pub fn add(&mut self, other: OutcomeWindow) {
        self.all += other.all;
        self.failed += other.failed;
        self.silent += other.silent;
    }

    /// So many failed that something is wrong, if there were enough.
    pub fn is_failing(self) -> bool {
        self.failed > 0 && self.failed * SICK_OF.1 >= self.all * SICK_OF.0
    }

    pub fn is_enough(self) -> bool {
        self.all >= ENOUGH
    }

    /// What most of the faults were.
    pub fn fault(self) -> Fault {
        if self.silent * 2 >= self.failed { Fault::Silent } else { Fault::Quick }
    }
}

impl Breaker {
    pub fn circuit(&self) -> Circuit {
        Circuit::from_code(self.circuit.load(Relaxed))
    }

    /// Milliseconds since it opened, unless it is closed.
    pub fn faulty_for_ms(&self, now: Instant) -> Option<u64> {
        let is_faulty = self.circuit() != Circuit::Closed;
        is_faulty.then(|| millis(now).saturating_sub(self.since.load(Relaxed)))
    }

    /// Whether a request that has nothing else left may pass: not where it would wait in vain.
    pub fn lets_through(&self) -> bool {
        self.circuit() == Circuit::Closed || !self.silent.load(Relaxed)
    }

    pub fn pass(&self, now: Instant) -> BreakerDecision {
        match self.circuit() {
            Circuit::Closed => BreakerDecision::Free,
            Circuit::HalfOpen if self.begin_request(now) => BreakerDecision::Trial,
            Circuit::HalfOpen | Circuit::Open => BreakerDecision::No,
        }
    }

    /// One request at a time, and another one every few seconds: one that hangs must not keep the circuit
    /// from closing.
    fn begin_request(&self, now: Instant) -> bool {
        let due = self.due.load(Relaxed);
        if !self.begin_trial() && millis(now) < due {
            return false;
        }
        self.due.compare_exchange(due, next_probe(now), Relaxed, Relaxed).is_ok()
    }

    fn begin_trial(&self) -> bool {
        self.on_trial.compare_exchange(false, true, Relaxed, Relaxed).is_ok()
    }

    /// The probe was inconclusive: the app left.
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
    pub fn failed(&self, fault: Fault, was_trial: bool, now: Instant) -> bool {
        let bucket = self.bucket(now);
        bucket.failed.fetch_add(1, Relaxed);
        if fault == Fault::Silent {
            bucket.silent.fetch_add(1, Relaxed);
        }
        if self.circuit() != Circuit::Closed {
            if was_trial {
                self.open(fault, now);
            }
            return false;
        }
        let tally = self.tally(now);
        let opens = tally.is_enough() && tally.is_failing();
        if opens {
            self.open(tally.fault(), now);
        }
        opens
    }

    /// Opens it, here or because another gateway found out.
    pub fn open(&self, fault: Fault, now: Instant) {
        if self.circuit() == Circuit::Closed {
            self.since.store(millis(now), Relaxed);
        }
        self.silent.store(fault == Fault::Silent, Relaxed);
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

    /// Whether a probe is due; on `true` the caller has to report its result. The next one is due a fixed
    /// time after the start of this one, whatever its duration.
    pub fn try_probe(&self, now: Instant) -> bool {
        let is_due = self.circuit() == Circuit::Open
            && millis(now) >= self.due.load(Relaxed)
            && self.begin_trial();
        if is_due {
            self.due.store(next_probe(now), Relaxed);
        }
        is_due
    }

    /// The provider is reachable: one request may probe it.
    pub fn half_open(&self) {
        let (open, half) = (Circuit::Open as u32, Circuit::HalfOpen as u32);
        let _ = self.circuit.compare_exchange(open, half, Relaxed, Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    /// The next probe comes later.
    fn put_off(&self, now: Instant) {
        self.due.store(next_probe(now), Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    fn bucket(&self, now: Instant) -> &Bucket {
        let turn = millis(now) / BUCKET_MS + 1;
        let bucket = &self.buckets[turn as usize % BUCKETS];
        // Two that come at once may lose a count between them, which changes nothing.
        if bucket.turn.load(Relaxed) != turn && bucket.turn.swap(turn, Relaxed) != turn {
            bucket.answered.store(0, Relaxed);
            bucket.failed.store(0, Relaxed);
            bucket.silent.store(0, Relaxed);
        }
        bucket
    }

    /// What the last minute's attempts came to.
    pub fn tally(&self, now: Instant) -> OutcomeWindow {
        let turn = millis(now) / BUCKET_MS + 1;
        let recent = |bucket: &&Bucket| bucket.turn.load(Relaxed) + BUCKETS as u64 > turn;
        let mut tally = OutcomeWindow::default();
        for bucket in self.buckets.iter().filter(recent) {
            let failed = bucket.failed.load(Relaxed);
            let all = failed + bucket.answered.load(Relaxed);
            tally.add(OutcomeWindow { all, failed, silent: bucket.silent.load(Relaxed) });
        }
        tally
    }
}

fn next_probe(now: Instant) -> u64 {
    millis(now + PROBE_PAUSE - jitter(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        super::super::backoff::start_clock();
        Instant::now() + Duration::from_secs(100)
    }

    #[test]
    fn it_opens_when_every_second_attempt_of_enough_failed_and_never_on_one_error() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            assert!(!breaker.failed(Fault::Quick, false, start()));
            assert_eq!(breaker.pass(start()), BreakerDecision::Free);
        }
        assert!(breaker.failed(Fault::Quick, false, start()), "the fourth");
        assert_eq!(
            (breaker.circuit(), breaker.pass(start())),
            (Circuit::Open, BreakerDecision::No)
        );
        assert!(!breaker.failed(Fault::Quick, false, start()), "late failures change nothing");
        let busy = Breaker::default();
        for _ in 0..100 {
            busy.answered(false, start());
            busy.answered(false, start());
            assert!(!busy.failed(Fault::Quick, false, start()), "one in three");
        }
    }

    #[test]
    fn what_is_older_than_a_minute_is_forgotten() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.failed(Fault::Quick, false, start());
        }
        assert!(!breaker.failed(Fault::Quick, false, start() + Duration::from_secs(61)));
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }

    #[test]
    fn a_probe_lets_one_request_try_and_its_answer_decides() {
        let (breaker, mut now) = (Breaker::default(), start());
        breaker.open(Fault::Quick, now);
        assert!(!breaker.try_probe(now), "not at once");
        now += PROBE_PAUSE;
        assert!(breaker.try_probe(now) && !breaker.try_probe(now), "one at a time");
        breaker.end_trial();
        assert!(!breaker.try_probe(now), "the next one is due later");
        now += PROBE_PAUSE;
        assert!(breaker.try_probe(now));
        breaker.half_open();
        assert_eq!(
            (breaker.pass(now), breaker.pass(now)),
            (BreakerDecision::Trial, BreakerDecision::No)
        );
        now += PROBE_PAUSE;
        let later = (breaker.pass(now), breaker.pass(now));
        assert_eq!(
            later,
            (BreakerDecision::Trial, BreakerDecision::No),
            "a request that hangs keeps no other out for long"
        );
        breaker.end_trial();
        assert_eq!(breaker.pass(now), BreakerDecision::Trial);
        assert!(!breaker.failed(Fault::Quick, true, now), "it was not closed");
        assert_eq!(breaker.circuit(), Circuit::Open);
        now += PROBE_PAUSE;
        assert!(breaker.try_probe(now));
        breaker.half_open();
        assert_eq!(breaker.pass(now), BreakerDecision::Trial);
        assert!(!breaker.answered(false, now), "an answer from before decides nothing");
        assert!(breaker.answered(true, now));
        assert_eq!(breaker.pass(now), BreakerDecision::Free);
        assert!(!breaker.failed(Fault::Quick, false, now), "and it begins anew");
    }

    #[test]
    fn what_opened_it_decides_whether_a_request_may_pass_that_has_nothing_else_left() {
        for (silent, lets_through) in [(1, true), (2, false), (4, false)] {
            let breaker = Breaker::default();
            for nth in 0..4 {
                assert!(breaker.lets_through());
                let fault = if nth < silent { Fault::Silent } else { Fault::Quick };
                breaker.failed(fault, false, start());
            }
            assert_eq!(
                (breaker.pass(start()), breaker.lets_through()),
                (BreakerDecision::No, lets_through)
            );
            breaker.half_open();
            assert_eq!(breaker.pass(start()), BreakerDecision::Trial);
            breaker.failed(Fault::Silent, true, start());
            assert!(!breaker.lets_through(), "its trial was silent");
        }
    }
}
