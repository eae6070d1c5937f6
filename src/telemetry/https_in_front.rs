//! With `behind_tls` a proxy in front of the gateway terminates TLS. It shows in `X-Forwarded-Proto: https`
//! (or `proto=https` in `Forwarded`): where the first requests from other hosts come without it, licence
//! keys may cross the network in clear.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Requests from other hosts before the warning.
const ENOUGH: u32 = 100;
/// It was seen: nothing is looked at any more.
const SEEN: u32 = u32::MAX;

/// Requests without it, until one has it.
#[derive(Default)]
pub struct HttpsInFront(AtomicU32);

impl HttpsInFront {
    /// Whether requests are still looked at.
    pub fn is_open(&self) -> bool {
        self.0.load(Relaxed) != SEEN
    }

    /// One request from another host.
    pub fn note(&self, has_it: bool) {
        if has_it {
            if self.0.swap(SEEN, Relaxed) >= ENOUGH {
                log::info!("Requests come with X-Forwarded-Proto: https now.");
            }
        } else if self.0.load(Relaxed) < ENOUGH && self.0.fetch_add(1, Relaxed) + 1 == ENOUGH {
            log::warn!(
                "server.behind_tls is set, and none of the first {ENOUGH} requests from other hosts had \
                 X-Forwarded-Proto: https: if nothing in front of the gateway speaks TLS, licence keys cross the \
                 network in clear. Let what stands in front set that header, or set server.tls."
            );
        }
    }

    /// Enough requests came without it, and none with it since.
    pub fn is_missing(&self) -> bool {
        (ENOUGH..SEEN).contains(&self.0.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_missing_after_a_hundred_requests_and_found_by_the_first_that_has_it() {
        let proto = HttpsInFront::default();
        for _ in 0..ENOUGH - 1 {
            proto.note(false);
        }
        assert!(!proto.is_missing() && proto.is_open());
        proto.note(false);
        proto.note(false);
        assert!(proto.is_missing() && proto.is_open());
        proto.note(true);
        assert!(!proto.is_missing() && !proto.is_open());
        proto.note(false);
        assert!(!proto.is_missing());
    }
}
