//! What an account may still use, by the headers of its answers: its share of the requests shrinks
//! before it runs dry.
//!
//! `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` (OpenAI, Groq) and
//! `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` (Anthropic),
//! as their API references define them. Gemini sends none.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::backoff::millis;

/// Thousandths of the limit; above it an account takes its full share.
const PLENTY: u32 = 200;
/// What is known is forgotten after a minute at most: most limits are a minute's.
const KNOWN_FOR: Duration = Duration::from_secs(60);
const FULL: u32 = 1000;

/// One limit as an answer states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitStatus {
    pub remaining: u64,
    pub limit: u64,
    /// Until it is full again, or has a little more.
    pub reset: Option<Duration>,
}

#[derive(Debug, Default)]
pub struct RateHeadroom {
    /// 0 unknown, else thousandths of the tightest limit that are left, plus one.
    left: AtomicU32,
    /// What is left and the limit, of the tightest one, for the operator.
    remaining: AtomicU64,
    limit: AtomicU64,
    until: AtomicU64,
}

impl RateHeadroom {
    /// Records the limits of one answer; the tightest counts.
    pub fn note(&self, limits: impl Iterator<Item = LimitStatus>, now: Instant) {
        let share =
            |left: &LimitStatus| left.remaining.saturating_mul(u64::from(FULL)) / left.limit.max(1);
        let Some(tightest) = limits.min_by_key(share) else { return };
        let known_for = tightest.reset.unwrap_or(KNOWN_FOR).min(KNOWN_FOR);
        self.remaining.store(tightest.remaining, Relaxed);
        self.limit.store(tightest.limit, Relaxed);
        self.until.store(millis(now + known_for), Relaxed);
        self.left.store(share(&tightest).min(u64::from(FULL)) as u32 + 1, Relaxed);
    }

    /// Thousandths of its turns that an account should take now.
    pub fn share(&self, now: Instant) -> u32 {
        let left = match self.left.load(Relaxed) {
            0 => return FULL,
            left => left - 1,
        };
        if left >= PLENTY || millis(now) >= self.until.load(Relaxed) {
            return FULL;
        }
        left * FULL / PLENTY
    }

    /// The remainder of the tightest limit, and the limit, if a recent answer stated them.
    pub fn known(&self, now: Instant) -> Option<(u64, u64)> {
        let is_known = self.left.load(Relaxed) > 0 && millis(now) < self.until.load(Relaxed);
        is_known.then(|| (self.remaining.load(Relaxed), self.limit.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(remaining: u64, limit: u64) -> LimitStatus {
        LimitStatus { remaining, limit, reset: Some(Duration::from_secs(10)) }
    }

    #[test]
    fn the_tightest_limit_counts_until_its_reset() {
        let (allowance, now) = (RateHeadroom::default(), Instant::now());
        assert_eq!((allowance.share(now), allowance.known(now)), (FULL, None));
        allowance.note([left(900, 1000), left(10, 100)].into_iter(), now);
        assert_eq!((allowance.share(now), allowance.known(now)), (500, Some((10, 100))));
        allowance.note([left(0, 100)].into_iter(), now);
        assert_eq!(allowance.share(now), 0);
        assert_eq!(allowance.share(now + Duration::from_secs(11)), FULL);
        allowance.note([left(50, 100)].into_iter(), now);
        assert_eq!(allowance.share(now), FULL);
        allowance.note(std::iter::empty(), now);
        allowance
            .note([LimitStatus { remaining: u64::MAX, limit: 0, reset: None }].into_iter(), now);
        assert_eq!(allowance.share(now), FULL);
    }
}
