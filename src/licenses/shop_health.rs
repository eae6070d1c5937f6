//! How a shop is doing: asked again at once after one failure, then with pauses that grow, so that
//! requests don't wait for a shop that is known to be away.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::UnixMs;
use parking_lot::Mutex;

use crate::shops::{ShopError, ShopReply};

/// Failures in a row before the first pause.
const PATIENCE: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A shop that failed is asked again after so long without a call: recovery shows within a minute.
const PROBE_EVERY: Duration = Duration::from_secs(50);
/// Pause after a 429 without Retry-After.
const LIMITED_PAUSE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct ShopHealth(Mutex<ShopHealthState>);

#[derive(Default)]
struct ShopHealthState {
    failures: u32,
    paused_until: Option<Instant>,
    why: Option<String>,
    /// When it last answered or failed to.
    heard: Option<Instant>,
    /// When its last webhook came.
    last_event: Option<UnixMs>,
    /// Our own mistakes, by what was asked about.
    mistakes: BTreeMap<String, String>,
}

/// What an operator sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopStatus {
    pub state: &'static str,
    pub why: Option<String>,
    /// When the last genuine webhook came.
    pub last_event: Option<UnixMs>,
}

impl ShopHealth {
    /// Records what an answer about `subject` shows of the shop; true if its state changed.
    pub fn hear(&self, reply: &ShopReply, subject: &str, now: Instant) -> bool {
        let mut inner = self.0.lock();
        inner.heard = Some(now);
        let ShopReply::Unknown(trouble) = reply else {
            inner.mistakes.remove(subject);
            let was_down = inner.failures > 0;
            inner.failures = 0;
            inner.paused_until = None;
            inner.why = None;
            return was_down;
        };
        match trouble {
            ShopError::Misconfigured(why) => {
                return inner.mistakes.insert(subject.to_owned(), why.clone()).is_none();
            }
            ShopError::Limited { retry_after } => {
                inner.failures += 1;
                inner.paused_until = Some(now + retry_after.unwrap_or(LIMITED_PAUSE));
            }
            ShopError::Down(_) => {
                inner.failures += 1;
                if inner.failures >= PATIENCE {
                    let doubled = FIRST_PAUSE * (1 << (inner.failures - PATIENCE).min(8));
                    inner.paused_until = Some(now + doubled.min(LONGEST_PAUSE));
                }
            }
        }
        inner.why = Some(trouble.to_string());
        inner.failures == 1
    }

    pub fn is_paused(&self, now: Instant) -> bool {
        self.0.lock().paused_until.is_some_and(|until| now < until)
    }

    /// What to ask a shop about that failed and was not asked for a while: what it was asked about then, for a mistake
    /// of ours.
    pub fn wants_probe(&self, now: Instant) -> Option<Option<String>> {
        let inner = self.0.lock();
        let is_over = |at: Option<Instant>, span| at.is_none_or(|at| now >= at + span);
        let is_time =
            is_over(inner.heard, PROBE_EVERY) && is_over(inner.paused_until, Duration::ZERO);
        let mistake = inner.mistakes.keys().next().cloned();
        (is_time && (inner.failures > 0 || mistake.is_some())).then_some(mistake)
    }

    /// Mistakes about what is not asked any more are none.
    pub fn keep_mistakes(&self, is_asked: impl Fn(&str) -> bool) {
        self.0.lock().mistakes.retain(|subject, _| is_asked(subject));
    }

    pub fn tell_event(&self, now: UnixMs) {
        self.0.lock().last_event = Some(now);
    }

    pub fn report(&self) -> ShopStatus {
        let inner = self.0.lock();
        let last_event = inner.last_event;
        if !inner.mistakes.is_empty() {
            let why: Vec<&str> = inner.mistakes.values().map(String::as_str).collect();
            return ShopStatus { state: "misconfigured", why: Some(why.join("; ")), last_event };
        }
        match &inner.why {
            Some(why) => ShopStatus { state: "down", why: Some(why.clone()), last_event },
            None => ShopStatus { state: "ok", why: None, last_event },
        }
    }
}

/// Every state a source can be in; `holding` comes from `upheaval`.
pub const STATES: [&str; 4] = ["ok", "down", "misconfigured", "holding"];

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> ShopReply {
        ShopReply::Unknown(ShopError::status(500))
    }

    #[test]
    fn pauses_grow_and_end_with_the_first_answer() {
        let (health, mut now) = (ShopHealth::default(), Instant::now());
        assert!(health.hear(&down(), "", now), "news");
        assert!(!health.hear(&down(), "", now));
        assert!(!health.is_paused(now));
        for pause in [2, 4, 8, 15, 15] {
            health.hear(&down(), "", now);
            assert!(health.is_paused(now + Duration::from_secs(pause) - Duration::from_millis(1)));
            now += Duration::from_secs(pause);
            assert!(!health.is_paused(now));
        }
        assert_eq!(health.report().state, "down");
        assert!(health.hear(&ShopReply::NotFound, "", now), "news");
        assert_eq!((health.report().state, health.report().why), ("ok", None));
    }

    #[test]
    fn a_mistake_of_ours_pauses_nothing_and_is_reported_until_it_is_mended() {
        let (health, now) = (ShopHealth::default(), Instant::now());
        let mistake = ShopReply::Unknown(ShopError::Misconfigured("`x` is no product id".into()));
        assert!(health.hear(&mistake, "x", now));
        assert!(!health.hear(&mistake, "x", now), "said once");
        health.hear(&ShopReply::NotFound, "y", now);
        assert_eq!(health.report().state, "misconfigured");
        assert!(!health.is_paused(now));
        health.hear(&ShopReply::NotFound, "x", now);
        assert_eq!(health.report().state, "ok");
    }

    #[test]
    fn a_shop_that_failed_is_asked_again_within_a_minute_until_it_answers() {
        let (health, start) = (ShopHealth::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.wants_probe(start), None, "nothing is known of it");
        health.hear(&down(), "", start);
        assert_eq!(health.wants_probe(after(49)), None);
        assert_eq!(health.wants_probe(after(50)), Some(None));
        let limited = ShopError::Limited { retry_after: Some(Duration::from_secs(90)) };
        health.hear(&ShopReply::Unknown(limited), "", after(50));
        assert_eq!(health.wants_probe(after(139)), None, "it asked for patience");
        assert_eq!(health.wants_probe(after(140)), Some(None));
        health.hear(&ShopReply::NotFound, "", after(140));
        assert_eq!(health.wants_probe(after(900)), None);
        let mistake = ShopReply::Unknown(ShopError::Misconfigured("`x` is no product id".into()));
        health.hear(&mistake, "x", after(900));
        assert_eq!(health.wants_probe(after(950)), Some(Some("x".into())));
        health.keep_mistakes(|subject| subject != "x");
        assert_eq!((health.wants_probe(after(990)), health.report().state), (None, "ok"));
    }

    #[test]
    fn a_shop_that_asks_for_patience_gets_it() {
        let (health, now) = (ShopHealth::default(), Instant::now());
        let limited = ShopError::Limited { retry_after: Some(Duration::from_secs(41)) };
        health.hear(&ShopReply::Unknown(limited), "", now);
        assert!(health.is_paused(now + Duration::from_secs(40)));
        assert!(!health.is_paused(now + Duration::from_secs(41)));
    }
}
