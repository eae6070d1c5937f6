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
/// After a 429 that does not say how long.
const LIMITED_PAUSE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct ShopHealth(Mutex<ShopHealthState>);

#[derive(Default)]
struct ShopHealthState {
    failures: u32,
    paused_until: Option<Instant>,
    why: Option<String>,
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
    /// Takes in what an answer about `subject` tells of the shop; true when it is news.
    pub fn hear(&self, reply: &ShopReply, subject: &str, now: Instant) -> bool {
        let mut inner = self.0.lock();
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
    fn a_shop_that_asks_for_patience_gets_it() {
        let (health, now) = (ShopHealth::default(), Instant::now());
        let limited = ShopError::Limited { retry_after: Some(Duration::from_secs(41)) };
        health.hear(&ShopReply::Unknown(limited), "", now);
        assert!(health.is_paused(now + Duration::from_secs(40)));
        assert!(!health.is_paused(now + Duration::from_secs(41)));
    }
}
