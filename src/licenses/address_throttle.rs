//! Per-address throttle for unknown licence keys. A buyer mistypes a key once or twice; an address that tries
//! many different keys is guessing.

use std::{net::IpAddr, sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use moka::sync::Cache;
use parking_lot::Mutex;

use super::clock::passed;

/// Never-seen keys of one address a minute.
const KEYS_A_MINUTE: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);
/// How long an address is remembered.
const HOUR: Duration = Duration::from_secs(3600);
/// Maximum number of addresses; some megabytes.
const REMEMBERED: u64 = 65_536;

/// IPv4 as it is, IPv6 by its first 64 bits: what one customer of a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientPrefix(u128);

impl From<IpAddr> for ClientPrefix {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u128::from(address.to_bits())),
            // The upper half is never 0 in an address that is routed, so the two kinds differ.
            IpAddr::V6(address) => Self(address.to_bits() >> 64 << 64),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleDecision {
    /// No refused key in the last hour, and no other key tried.
    Clean,
    Suspect,
    /// Seconds until the next key.
    TooMany {
        retry_after: u64,
    },
}

pub struct AddressThrottle {
    seen: Cache<ClientPrefix, Arc<Mutex<AddressState>>>,
}

#[derive(Default)]
struct AddressState {
    /// Keys that were never seen when they came, newest last; at most an hour old.
    tried: Vec<TriedKey>,
    /// When a key was last refused.
    refused: Option<UnixMs>,
}

struct TriedKey {
    /// The first 64 bits of its id: enough to distinguish the twenty keys of one address.
    key: u64,
    at: UnixMs,
    /// It turned out to be good.
    good: bool,
}

impl Default for AddressThrottle {
    fn default() -> Self {
        let seen = Cache::builder().max_capacity(REMEMBERED).time_to_idle(HOUR).build();
        Self { seen }
    }
}

impl AddressThrottle {
    /// Counts a never-seen key.
    pub fn admit(&self, address: ClientPrefix, key: &LicenseId, now: UnixMs) -> ThrottleDecision {
        let state = self.seen.get_with(address, Arc::default);
        let mut state = state.lock();
        state.tried.retain(|tried| passed(tried.at, now) < HOUR);
        let key = tag(key);
        if !state.tried.iter().any(|tried| tried.key == key) {
            // A key that turned out to be valid does not count.
            let last = |tried: &&TriedKey| !tried.good && passed(tried.at, now) < MINUTE;
            let minute: Vec<UnixMs> = state.tried.iter().filter(last).map(|t| t.at).collect();
            if minute.len() >= KEYS_A_MINUTE {
                let wait = minute[0].plus(MINUTE).0.saturating_sub(now.0);
                return ThrottleDecision::TooMany { retry_after: wait.div_ceil(1000).max(1) };
            }
            if state.tried.len() > 2 * KEYS_A_MINUTE {
                state.tried.remove(0);
            }
            state.tried.push(TriedKey { key, at: now, good: false });
        }
        let refused = state.refused.is_some_and(|at| passed(at, now) < HOUR);
        let other = state.tried.iter().any(|tried| tried.key != key && !tried.good);
        if refused || other { ThrottleDecision::Suspect } else { ThrottleDecision::Clean }
    }

    /// A key from this address was refused, by a shop or by its format.
    pub fn record_failure(&self, address: ClientPrefix, now: UnixMs) {
        self.seen.get_with(address, Arc::default).lock().refused = Some(now);
    }

    pub fn record_success(&self, address: ClientPrefix, key: &LicenseId) {
        if let Some(state) = self.seen.get(&address) {
            let key = tag(key);
            for tried in state.lock().tried.iter_mut().filter(|tried| tried.key == key) {
                tried.good = true;
            }
        }
    }
}

fn tag(key: &LicenseId) -> u64 {
    key.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> LicenseId {
        LicenseId([number; 32])
    }

    #[test]
    fn twenty_never_seen_keys_a_minute_pass() {
        let throttle = AddressThrottle::default();
        let address = ClientPrefix::from(IpAddr::from([10, 0, 0, 1]));
        for number in 0..20 {
            let admission = throttle.admit(address, &key(number), UnixMs(1_000));
            assert_ne!(admission, ThrottleDecision::TooMany { retry_after: 60 }, "{number}");
        }
        let twenty_first = |now| throttle.admit(address, &key(20), UnixMs(now));
        assert_eq!(twenty_first(31_000), ThrottleDecision::TooMany { retry_after: 30 });
        assert_eq!(throttle.admit(address, &key(3), UnixMs(31_000)), ThrottleDecision::Suspect);
        assert_eq!(twenty_first(61_000), ThrottleDecision::Suspect);
        let other = ClientPrefix::from(IpAddr::from([10, 0, 0, 2]));
        assert_eq!(throttle.admit(other, &key(20), UnixMs(31_000)), ThrottleDecision::Clean);
    }

    #[test]
    fn a_buyer_stays_clean_and_a_guesser_does_not() {
        let throttle = AddressThrottle::default();
        let address = ClientPrefix::from(IpAddr::from([10, 0, 0, 1]));
        let admit = |number, now| throttle.admit(address, &key(number), UnixMs(now));
        assert_eq!(admit(1, 0), ThrottleDecision::Clean);
        assert_eq!(admit(1, 5_000), ThrottleDecision::Clean, "the same key again");
        throttle.record_success(address, &key(1));
        assert_eq!(admit(2, 6_000), ThrottleDecision::Clean, "a colleague in the same office");
        assert_eq!(admit(3, 7_000), ThrottleDecision::Suspect);
        throttle.record_failure(address, UnixMs(8_000));
        assert_eq!(admit(1, 9_000), ThrottleDecision::Suspect);
        assert_eq!(admit(4, 8_000 + HOUR.as_millis() as u64), ThrottleDecision::Clean);
    }

    #[test]
    fn one_network_is_one_address() {
        let address = |text: &str| ClientPrefix::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
