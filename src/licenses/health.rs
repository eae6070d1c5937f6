//! How a shop is doing: asked again at once after one failure, then with pauses that grow, so that
//! requests don't wait for a shop that is known to be away.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::facts::{Reply, Trouble};

/// Failures in a row before the first pause.
const PATIENCE: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// After a 429 that does not say how long.
const LIMITED_PAUSE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Health(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    failures: u32,
    paused_until: Option<Instant>,
    why: Option<String>,
    /// Our own mistakes, by what was asked about.
    mistakes: BTreeMap<String, String>,
}

/// What an operator sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub state: &'static str,
    pub why: Option<String>,
}

impl Health {
    /// Takes in what an answer about `subject` tells of the shop; true when it is news.
    pub fn hear(&self, reply: &Reply, subject: &str, now: Instant) -> bool {
        let mut inner = self.0.lock();
        let Reply::Unknown(trouble) = reply else {
            inner.mistakes.remove(subject);
            let was_down = inner.failures > 0;
            inner.failures = 0;
            inner.paused_until = None;
            inner.why = None;
            return was_down;
        };
        match trouble {
            Trouble::Misconfigured(why) => {
                return inner.mistakes.insert(subject.to_owned(), why.clone()).is_none();
            }
            Trouble::Limited { retry_after } => {
                inner.failures += 1;
                inner.paused_until = Some(now + retry_after.unwrap_or(LIMITED_PAUSE));
            }
            Trouble::Down(_) => {
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

    pub fn report(&self) -> Report {
        let inner = self.0.lock();
        if !inner.mistakes.is_empty() {
            let why: Vec<&str> = inner.mistakes.values().map(String::as_str).collect();
            return Report { state: "misconfigured", why: Some(why.join("; ")) };
        }
        match &inner.why {
            Some(why) => Report { state: "down", why: Some(why.clone()) },
            None => Report { state: "ok", why: None },
        }
    }
}

/// Every state a source can be in; `holding` comes from `upheaval`.
pub const STATES: [&str; 4] = ["ok", "down", "misconfigured", "holding"];

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Reply {
        Reply::Unknown(Trouble::status(500))
    }

    #[test]
    fn pauses_grow_and_end_with_the_first_answer() {
        let (health, mut now) = (Health::default(), Instant::now());
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
        assert!(health.hear(&Reply::NotFound, "", now), "news");
        assert_eq!(health.report(), Report { state: "ok", why: None });
    }

    #[test]
    fn a_mistake_of_ours_pauses_nothing_and_is_reported_until_it_is_mended() {
        let (health, now) = (Health::default(), Instant::now());
        let mistake = Reply::Unknown(Trouble::Misconfigured("`x` is no product id".into()));
        assert!(health.hear(&mistake, "x", now));
        assert!(!health.hear(&mistake, "x", now), "said once");
        health.hear(&Reply::NotFound, "y", now);
        assert_eq!(health.report().state, "misconfigured");
        assert!(!health.is_paused(now));
        health.hear(&Reply::NotFound, "x", now);
        assert_eq!(health.report().state, "ok");
    }

    #[test]
    fn a_shop_that_asks_for_patience_gets_it() {
        let (health, now) = (Health::default(), Instant::now());
        let limited = Trouble::Limited { retry_after: Some(Duration::from_secs(41)) };
        health.hear(&Reply::Unknown(limited), "", now);
        assert!(health.is_paused(now + Duration::from_secs(40)));
        assert!(!health.is_paused(now + Duration::from_secs(41)));
    }
}
