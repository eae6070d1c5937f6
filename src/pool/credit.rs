//! Whether an account's money is gone, or only too little for one request.
//!
//! OpenRouter refuses a request that may cost more than the account has left (402 "can only afford N"),
//! while a smaller one would be served. Once small requests of three licences are refused, with no answer
//! in between, the account counts as exhausted.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::Mutex;

use super::{backoff::millis, witnesses::Witnesses};

/// Most tokens of a small request.
const SMALL_INPUT: u64 = 4096;
const SMALL_OUTPUT: u64 = 1024;

/// Whether an account that can't pay for this can pay for hardly anything. Without a cap the provider reckons with the
/// most its model may write.
pub fn is_small(input: u64, cap: Option<u64>) -> bool {
    input <= SMALL_INPUT && cap.is_some_and(|cap| cap <= SMALL_OUTPUT)
}

#[derive(Debug, Default)]
pub struct Credit {
    refused: Mutex<Witnesses>,
    /// A request was refused since the last answer.
    is_short: AtomicBool,
}

impl Credit {
    /// A small request of this licence was refused. Whether the money is gone.
    pub fn refused(&self, license: u64, now: Instant) -> bool {
        let mut refused = self.refused.lock();
        self.is_short.store(true, Relaxed);
        refused.add(license, millis(now), u64::MAX)
    }

    /// An answer came, or the account rests. Hot: nearly always there is nothing to forget.
    pub fn forget(&self) {
        if self.is_short.load(Relaxed) {
            let mut refused = self.refused.lock();
            *refused = Witnesses::default();
            self.is_short.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn small_requests_of_three_licences_without_an_answer_between_tell_that_the_money_is_gone() {
        super::super::backoff::start_clock();
        let (credit, mut now) = (Credit::default(), Instant::now());
        for license in [1, 2, 1, 2, 2] {
            assert!(!credit.refused(license, now), "two licences are two requests");
            now += Duration::from_secs(3600);
        }
        credit.forget();
        assert!(!credit.refused(3, now) && !credit.refused(1, now));
        assert!(credit.refused(2, now));
        credit.forget();
        assert!(!credit.refused(3, now));
    }

    #[test]
    fn what_may_cost_much_is_not_small() {
        assert!(is_small(4096, Some(1024)));
        assert!(!is_small(4097, Some(1)) && !is_small(1, Some(1025)) && !is_small(1, None));
    }
}
