//! Learns how many tokens per second a target produces that no app sees: hidden reasoning of a stream, and
//! the whole of an answer that comes in one piece. Learned from complete answers that the provider counted,
//! used where an answer was cut off. Kept over restarts and reloads.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{Cut, UnseenEstimate, Whole};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Tokens a second of a target whose answers report reasoning, before one was measured.
const START: f64 = 50.0;
/// Weight of that start beside what is measured, in seconds.
const START_WEIGHT: f64 = 0.02;
/// Most tokens that the start alone makes of an answer.
const START_MOST: u64 = 4_096;
/// What an earlier answer weighs beside the one after it: fifty of them make the mean.
const DECAY: f64 = 0.98;
/// Answers that the percentile is taken of.
const RECENT: usize = 64;
/// A target that answered a request this recently is assumed to work on those it does not answer.
pub const WORKS: Duration = Duration::from_secs(60);
/// Shorter answers give no usable rate.
const LEAST_SECONDS: f64 = 0.001;

/// All targets that ever answered, by label.
#[derive(Default)]
pub struct UnseenRates(Mutex<BTreeMap<Arc<str>, Arc<UnseenRate>>>);

impl UnseenRates {
    pub fn of(&self, label: &Arc<str>) -> Arc<UnseenRate> {
        self.0.lock().entry(label.clone()).or_default().clone()
    }

    /// Takes in what a run before has kept; what can't be read is learned anew.
    pub fn restore(&self, kept: impl IntoIterator<Item = (String, String)>) {
        for (label, known) in kept {
            if let Ok(known) = serde_json::from_str(&known) {
                *self.of(&label.into()).known.lock() = known;
            }
        }
    }

    /// What changed since the last call, to be kept.
    pub fn changed(&self) -> Vec<(String, String)> {
        let paces: Vec<_> = self.0.lock().iter().map(|(l, p)| (l.clone(), p.clone())).collect();
        let changed = paces.iter().filter_map(|(label, pace)| {
            let mut known = pace.known.lock();
            std::mem::take(&mut known.is_new)
                .then(|| (label.to_string(), serde_json::to_string(&*known).unwrap_or_default()))
        });
        changed.collect()
    }
}

/// One target.
#[derive(Default)]
pub struct UnseenRate {
    known: Mutex<Known>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    /// Its answers report tokens of reasoning.
    reasons: bool,
    /// What a stream held beside what was read, by time since its head.
    streams: Rate,
    /// What answers held in all, by time since they were asked for.
    answers: Rate,
    #[serde(skip)]
    answered: Option<Instant>,
    #[serde(skip)]
    is_new: bool,
}

/// Tokens by time: a decaying mean, and how many there are in one answer.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Rate {
    tokens: f64,
    seconds: f64,
    /// Of the last answers, oldest first.
    recent: std::collections::VecDeque<u32>,
}

impl Rate {
    fn learn(&mut self, tokens: u64, took: Duration) {
        self.tokens = self.tokens.mul_add(DECAY, tokens as f64);
        self.seconds = self.seconds.mul_add(DECAY, took.as_secs_f64().max(LEAST_SECONDS));
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(u32::try_from(tokens).unwrap_or(u32::MAX));
    }

    fn estimate(&self, passed: Duration, start: f64) -> u64 {
        let weight = if start > 0.0 { START_WEIGHT } else { 0.0 };
        let seconds = self.seconds + weight;
        if seconds <= 0.0 {
            return 0;
        }
        let pace = start.mul_add(weight, self.tokens) / seconds;
        let tokens = (pace * passed.as_secs_f64()).round() as u64;
        tokens.min(self.ninetieth().unwrap_or(START_MOST))
    }

    /// The 90th percentile of the last answers.
    fn ninetieth(&self) -> Option<u64> {
        let mut sorted: Vec<u32> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let place = (sorted.len() * 9).div_ceil(10).checked_sub(1)?;
        sorted.get(place).map(|tokens| u64::from(*tokens))
    }
}

impl UnseenRate {
    /// Some request was answered.
    pub fn answered(&self, now: Instant) {
        self.known.lock().answered = Some(now);
    }

    pub fn learn(&self, answer: &Whole) {
        let mut known = self.known.lock();
        known.reasons |= answer.reasoning > 0;
        if answer.streamed {
            known.streams.learn(unseen(answer), answer.took);
        }
        known.answers.learn(answer.output, answer.took);
        known.answered = Some(Instant::now());
        known.is_new = true;
    }

    /// Of a stream, what it may have held beside what was read; of any other answer, all of it. One that
    /// never began was worked on if the target works at all.
    pub fn unseen(&self, cut: &Cut) -> UnseenEstimate {
        let known = self.known.lock();
        let start = if known.reasons { START } else { 0.0 };
        let from = cut.head.filter(|_| cut.streamed).unwrap_or(cut.sent);
        let passed = cut.at.saturating_duration_since(from);
        let rate = if cut.streamed { &known.streams } else { &known.answers };
        let tokens = rate.estimate(passed, start);
        let works = |at: Instant| cut.sent.saturating_duration_since(at) <= WORKS;
        if cut.head.is_some() || known.answered.is_some_and(works) {
            UnseenEstimate { tokens, doubtful: 0 }
        } else {
            UnseenEstimate { tokens: 0, doubtful: tokens }
        }
    }
}

/// Output beside what was read. Where no reasoning is reported, what an estimate may be wrong by is none.
fn unseen(answer: &Whole) -> u64 {
    let beside = answer.output.saturating_sub(answer.seen);
    if answer.reasoning == 0 && beside <= answer.seen / 4 + 8 { 0 } else { beside }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(output: u64, seen: u64, reasoning: u64, ms: u64) -> Whole {
        let took = Duration::from_millis(ms);
        Whole { streamed: true, took, output, reasoning, seen }
    }

    /// A stream whose head came `headed` before it was cut off, sent a second before that.
    fn cut(headed: Option<u64>) -> Cut {
        let at = Instant::now() + Duration::from_secs(1_000);
        let head = headed.map(|ms| at - Duration::from_millis(ms));
        let sent = head.unwrap_or(at - Duration::from_secs(9)) - Duration::from_secs(1);
        Cut { streamed: true, sent, head, at }
    }

    fn tokens(pace: &UnseenRate, ms: u64) -> u64 {
        pace.unseen(&cut(Some(ms))).tokens
    }

    #[test]
    fn hidden_output_is_estimated_by_time_and_has_an_end() {
        let pace = UnseenRate::default();
        assert_eq!(tokens(&pace, 10_000), 0, "nothing is known");
        for _ in 0..20 {
            pace.learn(&whole(1_100, 100, 1_000, 10_000));
        }
        for (ms, expected) in
            [(0, 0), (1_000, 100), (5_000, 500), (10_000, 1_000), (600_000, 1_000)]
        {
            let tokens = tokens(&pace, ms);
            assert!(tokens.abs_diff(expected) <= 1, "{ms}: {tokens}");
        }
        // The habits of a target change: the mean follows.
        for _ in 0..200 {
            pace.learn(&whole(300, 100, 200, 10_000));
        }
        assert!((95..=115).contains(&tokens(&pace, 5_000)), "{}", tokens(&pace, 5_000));
        assert_eq!(tokens(&pace, 600_000), 200);
    }

    #[test]
    fn a_target_that_hides_nothing_has_nothing_unseen_whatever_the_estimate_is_wrong_by() {
        let pace = UnseenRate::default();
        for (output, seen) in [(100, 100), (110, 100), (60, 100), (8, 0), (1_240, 1_000)] {
            pace.learn(&whole(output, seen, 0, 1_000));
        }
        assert_eq!(tokens(&pace, 60_000), 0);
        // Hidden, and not reported as reasoning.
        pace.learn(&whole(5_000, 100, 0, 5_000));
        assert!(tokens(&pace, 1_000) > 400);
    }

    #[test]
    fn a_target_that_reasons_has_a_start_before_anything_was_measured() {
        let pace = UnseenRate::default();
        pace.known.lock().reasons = true;
        assert_eq!(tokens(&pace, 2_000), 100);
        assert_eq!(tokens(&pace, 6_000_000), START_MOST);
    }

    #[test]
    fn an_answer_that_never_began_counts_where_the_target_works() {
        let pace = UnseenRate::default();
        (0..20).for_each(|_| pace.learn(&whole(1_100, 100, 1_000, 10_000)));
        let cut = cut(None);
        assert_eq!(pace.unseen(&cut), UnseenEstimate { tokens: 0, doubtful: 1_000 });
        for (before, works) in [(61, false), (59, true), (0, true)] {
            pace.answered(cut.sent - Duration::from_secs(before));
            let seen = pace.unseen(&cut);
            assert_eq!((seen.tokens, seen.doubtful), if works { (1_000, 0) } else { (0, 1_000) });
        }
        pace.answered(cut.at - Duration::from_secs(3));
        assert_eq!(pace.unseen(&cut).tokens, 1_000, "while it was waited for");
        // In one piece nothing of it was seen.
        let json = Cut { streamed: false, ..cut };
        assert!((1_090..=1_100).contains(&pace.unseen(&json).tokens));
    }

    #[test]
    fn what_was_learned_survives_a_restart() {
        let (paces, label) = (UnseenRates::default(), Arc::<str>::from("p/m"));
        (0..20).for_each(|_| paces.of(&label).learn(&whole(1_100, 100, 1_000, 10_000)));
        let kept = paces.changed();
        assert_eq!((kept.len(), paces.changed().len()), (1, 0));
        let next = UnseenRates::default();
        next.restore(kept.into_iter().chain([("q/m".to_owned(), "nonsense".to_owned())]));
        assert_eq!(tokens(&next.of(&label), 5_000), tokens(&paces.of(&label), 5_000));
        assert!(next.changed().is_empty());
    }
}
