//! Decides whether a firewall in front of a provider rejects one prompt or this machine altogether.
//!
//! Services like Cloudflare answer a prompt that contains a blocked word with an HTML page and status 403: that
//! concerns the prompt. When several licences get such a page within a minute and no request succeeds, the
//! firewall refuses this server.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::Mutex;

use super::{backoff::millis, witnesses::Witnesses};

const WITHIN_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub struct Firewall {
    met: Mutex<Witnesses>,
    /// When the provider answered last.
    served: AtomicU64,
    /// It refuses this machine.
    refuses: AtomicBool,
}

impl Firewall {
    pub fn refuses(&self) -> bool {
        self.refuses.load(Relaxed)
    }

    /// A licence was turned away. Whether that is the provider's fault by now.
    pub fn met(&self, license: u64, now: Instant) -> bool {
        if self.refuses() {
            return true;
        }
        let now = millis(now).max(1);
        let mut met = self.met.lock();
        let served = self.served.load(Relaxed);
        let is_silent = served == 0 || now.saturating_sub(served) > WITHIN_MS;
        let refuses = met.add(license, now, WITHIN_MS) && is_silent;
        if refuses {
            *met = Witnesses::default();
            self.refuses.store(true, Relaxed);
        }
        refuses
    }

    /// A request was answered.
    pub fn served(&self, now: Instant) {
        self.served.store(millis(now).max(1), Relaxed);
        if self.refuses() {
            self.refuses.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn start() -> Instant {
        super::super::backoff::start_clock();
        Instant::now() + Duration::from_secs(1000)
    }

    #[test]
    fn three_licences_within_a_minute_and_no_answer_are_the_provider_s_fault() {
        let (firewall, now) = (Firewall::default(), start());
        for license in [1, 1, 1, 2, 2, 1] {
            assert!(!firewall.met(license, now), "two licences are two prompts");
        }
        assert!(firewall.met(3, now) && firewall.refuses());
        assert!(firewall.met(1, now), "and stays so");
        firewall.served(now);
        assert!(!firewall.refuses());
        for license in 1..9 {
            assert!(
                !firewall.met(license, now + Duration::from_secs(59)),
                "another licence is served"
            );
        }
        assert!(firewall.met(9, now + Duration::from_secs(61)), "no licence is served any more");
    }

    #[test]
    fn licences_that_met_it_long_ago_do_not_count() {
        let (firewall, mut now) = (Firewall::default(), start());
        for license in 1..9 {
            assert!(!firewall.met(license, now));
            now += Duration::from_secs(31);
        }
    }
}
