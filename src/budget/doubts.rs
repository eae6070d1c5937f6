//! Requests that a target may have worked on although it answered none at the time. If it answers one
//! within a minute, their estimated cost is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use gatekeeper_filters::kernel::Record;
use parking_lot::Mutex;

use super::unseen_tokens::WORKS;

/// Above this number the oldest are dropped.
const MOST: usize = 4_096;

#[derive(Default)]
pub struct DoubtfulRequests {
    count: AtomicUsize,
    waiting: Mutex<Vec<DoubtfulRequest>>,
}

struct DoubtfulRequest {
    label: Arc<str>,
    /// When it was given up.
    ended: Instant,
    /// What is to be recorded if the target works.
    record: Record,
}

impl DoubtfulRequests {
    pub fn add(&self, label: &Arc<str>, ended: Instant, record: Record) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|doubt| ended.saturating_duration_since(doubt.ended) <= WORKS);
        if waiting.len() >= MOST {
            waiting.remove(0);
        }
        waiting.push(DoubtfulRequest { label: label.clone(), ended, record });
        self.count.store(waiting.len(), Relaxed);
    }

    /// The target has answered a request: returns those it presumably worked on.
    pub fn prove(&self, label: &str, now: Instant) -> Vec<Record> {
        if self.count.load(Relaxed) == 0 {
            return Vec::new();
        }
        let mut waiting = self.waiting.lock();
        let is_of = |doubt: &mut DoubtfulRequest| *doubt.label == *label;
        let proven: Vec<_> = waiting.extract_if(.., is_of).collect();
        self.count.store(waiting.len(), Relaxed);
        let in_time = |doubt: &DoubtfulRequest| now.saturating_duration_since(doubt.ended) <= WORKS;
        proven.into_iter().filter(in_time).map(|doubt| doubt.record).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(wasted: u64) -> Record {
        super::super::bad_days::record(wasted, 0)
    }

    #[test]
    fn a_target_that_answers_within_a_minute_has_worked_on_them() {
        let (doubts, start) = (DoubtfulRequests::default(), Instant::now());
        let (slow, other) = (Arc::from("p/slow"), Arc::from("p/other"));
        let after = |seconds| start + Duration::from_secs(seconds);
        for (label, seconds, wasted) in
            [(&slow, 0, 1), (&slow, 50, 2), (&other, 50, 3), (&slow, 55, 4)]
        {
            doubts.add(label, after(seconds), record(wasted));
        }
        let proven = |label: &str, seconds| -> Vec<u64> {
            doubts.prove(label, after(seconds)).iter().map(|record| record.wasted).collect()
        };
        assert_eq!(proven("p/slow", 61), [2, 4]);
        assert!(proven("p/slow", 62).is_empty());
        assert!(proven("p/other", 111).is_empty(), "too late");
        doubts.add(&slow, after(200), record(5));
        doubts.add(&other, after(261), record(6));
        assert_eq!(doubts.waiting.lock().len(), 1, "what is over is forgotten");
    }
}
