//! The marker of a request's blocks: what no app can guess before it has sent its values.

use std::cell::RefCell;

use gatekeeper_filters::kernel::{Code, Rejection};
use rand::{RngCore as _, SeedableRng as _, rngs::OsRng, rngs::StdRng};

thread_local! {
    /// ChaCha, seeded by the system once for each thread: who has seen any number of its markers knows nothing of
    /// the next, and a request makes no system call for one.
    static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Sixteen hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker([u8; 16]);

impl Marker {
    /// # Errors
    /// 503 where the system gives no random numbers to begin with.
    pub fn random() -> Result<Self, Rejection> {
        RANDOM.with_borrow_mut(|random| {
            let random = match random {
                Some(random) => random,
                None => random.insert(StdRng::from_rng(OsRng).map_err(|error| busy(&error))?),
            };
            Ok(Self::of(random.next_u64()))
        })
    }

    fn of(number: u64) -> Self {
        let digit = |place: usize| DIGITS[(number >> (60 - 4 * place)) as usize & 15];
        Self(std::array::from_fn(digit))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cold]
fn busy(error: &rand::Error) -> Rejection {
    Rejection::new(Code::UpstreamExhausted, "The service is very busy. Please try again.")
        .internal(format!("no random numbers: {error}"))
        .retry_after(1)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    #[test]
    fn a_marker_is_sixteen_digits() {
        assert_eq!(Marker::of(0x0123_4567_89ab_cdef).as_str(), "0123456789abcdef");
        assert_eq!(Marker::of(u64::MAX).as_str(), "ffffffffffffffff");
    }

    #[test]
    fn no_two_threads_and_no_two_requests_have_the_same() {
        let some = || -> Vec<String> {
            (0..1000).map(|_| Marker::random().unwrap().as_str().to_owned()).collect()
        };
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(some)).collect();
        let all: Vec<String> =
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4000);
        // Each digit is as likely as any other: 64,000 digits, 4,000 of each, give or take 7 standard deviations.
        for digit in DIGITS {
            let count = all.iter().flat_map(|marker| marker.bytes()).filter(|byte| byte == digit);
            assert!(count.count().abs_diff(4000) < 430);
        }
    }
}
