//! Wrong admin tokens are counted by address and in total. After several, further wrong ones get 429 with a
//! wait instead of 401. The right token always passes, so that a client behind the same proxy cannot lock
//! the operator's monitoring out; tokens have 16 characters or more, which are not found by guessing at any
//! rate.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Wrong tokens an address may send before it has to wait.
const FREE: u32 = 5;
/// The first wait; each wrong token after it doubles it up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// An address that was quiet for so long begins anew.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// Addresses remembered; beyond it the one that was quiet for longest is forgotten.
const ADDRESSES: usize = 1024;
/// Wrong tokens of all addresses together that may come at once, and how soon one more may follow.
const TOGETHER: u32 = 100;
const EVERY: Duration = Duration::from_secs(2);
/// Addresses that sent the right token, which need not wait for what others do.
const GOOD: usize = 64;

#[derive(Default)]
pub struct LoginThrottle(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    by: HashMap<IpAddr, FailedAttempts>,
    /// When the wrong tokens of all would be forgotten, at one each [`EVERY`].
    all_until: Option<Instant>,
    good: VecDeque<IpAddr>,
}

#[derive(Clone, Copy)]
struct FailedAttempts {
    count: u32,
    last: Instant,
    until: Instant,
}

/// What a wrong token is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginAttempt {
    Wrong,
    /// Seconds until the next one is answered otherwise.
    Wait(u64),
}

impl LoginThrottle {
    /// A wrong token, from an address if that is known. While an address has to wait its further ones
    /// don't count.
    pub fn wrong(&self, from: Option<IpAddr>, now: Instant) -> LoginAttempt {
        let from = from.map(network);
        let mut inner = self.0.lock();
        if let Some(wait) = inner.wait(from, now) {
            return LoginAttempt::Wait(wait.as_millis().div_ceil(1000).max(1) as u64);
        }
        inner.wrong(from, now);
        LoginAttempt::Wrong
    }

    /// The right one.
    pub fn right(&self, from: Option<IpAddr>) {
        self.0.lock().right(from.map(network));
    }
}

impl Inner {
    fn wait(&self, from: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let own = from.and_then(|from| self.by.get(&from));
        let own = own.map_or(Duration::ZERO, |wrong| wrong.until.saturating_duration_since(now));
        let is_good = from.is_some_and(|from| self.good.contains(&from));
        let all = self.all_until.filter(|_| !is_good).map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(now).saturating_sub(EVERY * (TOGETHER - 1))
        });
        Some(own.max(all)).filter(|wait| !wait.is_zero())
    }

    fn right(&mut self, from: Option<IpAddr>) {
        let Some(from) = from else { return };
        self.by.remove(&from);
        if !self.good.contains(&from) {
            if self.good.len() == GOOD {
                self.good.pop_front();
            }
            self.good.push_back(from);
        }
    }

    fn wrong(&mut self, from: Option<IpAddr>, now: Instant) {
        self.all_until = Some(self.all_until.map_or(now, |until| until.max(now)) + EVERY);
        let Some(from) = from else { return };
        if !self.by.contains_key(&from) && self.by.len() >= ADDRESSES {
            let quiet = self.by.iter().min_by_key(|(_, wrong)| wrong.last).map(|(of, _)| *of);
            if let Some(quiet) = quiet {
                self.by.remove(&quiet);
            }
        }
        let wrong =
            self.by.entry(from).or_insert(FailedAttempts { count: 0, last: now, until: now });
        if now.saturating_duration_since(wrong.last) >= FORGET {
            wrong.count = 0;
        }
        wrong.count = wrong.count.saturating_add(1);
        wrong.last = now;
        if let Some(above) = wrong.count.checked_sub(FREE) {
            wrong.until = now + FIRST.saturating_mul(1 << above.min(16)).min(LONGEST);
        }
    }
}

/// In IPv6 a client has a whole network of addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u32) -> Option<IpAddr> {
        Some(IpAddr::from((0x0a00_0000_u32 + last).to_be_bytes()))
    }

    #[test]
    fn an_address_waits_longer_each_time_and_the_right_token_ends_that() {
        let (tries, mut now) = (LoginThrottle::default(), Instant::now());
        for _ in 0..FREE {
            assert_eq!(tries.wrong(address(1), now), LoginAttempt::Wrong);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(tries.wrong(address(1), now), LoginAttempt::Wait(seconds));
            now += Duration::from_secs(seconds);
            assert_eq!(tries.wrong(address(1), now), LoginAttempt::Wrong);
        }
        assert_eq!(tries.wrong(address(1), now), LoginAttempt::Wait(60));
        tries.right(address(1));
        assert_eq!(tries.wrong(address(1), now), LoginAttempt::Wrong, "and it begins anew");
        assert_eq!(tries.wrong(address(1), now), LoginAttempt::Wrong);
        // Quiet for long enough.
        for _ in 0..FREE {
            tries.wrong(address(1), now);
        }
        now += FORGET;
        for _ in 0..FREE {
            assert_eq!(tries.wrong(address(1), now), LoginAttempt::Wrong);
        }
    }

    #[test]
    fn many_addresses_together_are_slowed_but_for_those_known_as_good() {
        let (tries, now) = (LoginThrottle::default(), Instant::now());
        tries.right(address(0));
        for last in 1..=TOGETHER {
            assert_eq!(tries.wrong(address(last), now), LoginAttempt::Wrong, "{last}");
        }
        assert_eq!(tries.wrong(address(9_999), now), LoginAttempt::Wait(2));
        assert_eq!(tries.wrong(None, now), LoginAttempt::Wait(2));
        assert_eq!(tries.wrong(address(0), now), LoginAttempt::Wrong);
        let later = now + 2 * EVERY;
        assert_eq!(tries.wrong(None, later), LoginAttempt::Wrong);
        assert_eq!(tries.wrong(None, later), LoginAttempt::Wait(2));
    }

    #[test]
    fn addresses_are_bounded_and_a_network_of_ipv6_is_one() {
        let (tries, mut now) = (LoginThrottle::default(), Instant::now());
        for last in 0..3 * ADDRESSES as u32 {
            now += EVERY;
            tries.wrong(address(last), now);
        }
        assert_eq!(tries.0.lock().by.len(), ADDRESSES);
        let of = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        now += EVERY * TOGETHER;
        for end in 0..FREE {
            tries.wrong(of(&format!("2001:db8::{end}")), now);
        }
        assert_eq!(tries.wrong(of("2001:db8::ffff"), now), LoginAttempt::Wait(1));
        assert_eq!(tries.wrong(of("2001:db8:0:1::1"), now), LoginAttempt::Wrong);
    }
}
