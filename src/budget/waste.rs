//! What licences waste: the share of the day's budget that each licence spent on answers that reached no app,
//! and its timeouts within the last hour.

use std::collections::VecDeque;

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::day::start;

const HOUR_MS: u64 = 3_600_000;
/// Licences that a shard remembers; beyond that, those without anything of today or the last hour are
/// forgotten, and then all.
const MOST: usize = 100_000 / SHARDS;
/// Timeouts counted individually.
const COUNTED: usize = 4;

/// By licence, in shards: each request looks.
pub struct WasteTracker(Box<[Shard]>);

type Shard = Mutex<FxHashMap<LicenseId, Waste>>;

const SHARDS: usize = 64;

impl Default for WasteTracker {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Shard::default()).collect())
    }
}

#[derive(Default)]
struct Waste {
    /// Start of the day that `spent` belongs to.
    day: u64,
    /// Picodollars.
    spent: u64,
    /// The last ones, oldest first.
    timeouts: VecDeque<UnixMs>,
}

impl Waste {
    fn spent(&self, now: UnixMs) -> u64 {
        if self.day == start(now) { self.spent } else { 0 }
    }

    fn is_old(&self, now: UnixMs) -> bool {
        let ended = |at: &UnixMs| now.0.saturating_sub(at.0) >= HOUR_MS;
        self.spent(now) == 0 && self.timeouts.back().is_none_or(ended)
    }
}

impl WasteTracker {
    fn shard(&self, license: &LicenseId) -> &Shard {
        // An HMAC: any of its bits spread evenly.
        &self.0[usize::from(license.0[0]) % SHARDS]
    }

    fn with<T>(&self, license: &LicenseId, now: UnixMs, act: impl FnOnce(&mut Waste) -> T) -> T {
        let mut wastes = self.shard(license).lock();
        if wastes.len() >= MOST && !wastes.contains_key(license) {
            wastes.retain(|_, waste| !waste.is_old(now));
            if wastes.len() >= MOST {
                wastes.clear();
            }
        }
        act(wastes.entry(*license).or_default())
    }

    /// Adds to what a licence has wasted on the day of `now`; a request that lasted over midnight does not
    /// bring the day before back.
    pub fn add(&self, license: &LicenseId, picodollars: u64, now: UnixMs) {
        self.with(license, now, |waste| {
            let day = start(now);
            if waste.day < day {
                (waste.day, waste.spent) = (day, 0);
            }
            if waste.day == day {
                waste.spent = waste.spent.saturating_add(picodollars);
            }
        });
    }

    /// Picodollars on the day of `now`.
    pub fn spent(&self, license: &LicenseId, now: UnixMs) -> u64 {
        self.shard(license).lock().get(license).map_or(0, |waste| waste.spent(now))
    }

    /// Counts a timeout; how many there were within the hour.
    pub fn timed_out(&self, license: &LicenseId, now: UnixMs) -> u32 {
        self.with(license, now, |waste| {
            waste.timeouts.retain(|at| now.0.saturating_sub(at.0) < HOUR_MS);
            if waste.timeouts.len() == COUNTED {
                waste.timeouts.pop_front();
            }
            waste.timeouts.push_back(now);
            waste.timeouts.len() as u32
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const NOON: UnixMs = UnixMs(20_000 * DAY_MS + DAY_MS / 2);
    const ANNA: LicenseId = LicenseId([1; 32]);
    const BERT: LicenseId = LicenseId([2; 32]);

    fn after(ms: u64) -> UnixMs {
        UnixMs(NOON.0 + ms)
    }

    #[test]
    fn waste_is_each_licences_own_and_of_one_day() {
        let wastes = WasteTracker::default();
        wastes.add(&ANNA, 5, NOON);
        wastes.add(&ANNA, 7, after(1));
        assert_eq!((wastes.spent(&ANNA, NOON), wastes.spent(&BERT, NOON)), (12, 0));
        assert_eq!(wastes.spent(&ANNA, after(DAY_MS)), 0);
        wastes.add(&ANNA, 1, after(DAY_MS));
        wastes.add(&ANNA, 100, NOON);
        assert_eq!(wastes.spent(&ANNA, after(DAY_MS)), 1);
    }

    #[test]
    fn timeouts_are_counted_for_an_hour() {
        let wastes = WasteTracker::default();
        let counts = [0, 1_000, HOUR_MS - 1, HOUR_MS, HOUR_MS + 1_000, 9 * HOUR_MS]
            .map(|ms| wastes.timed_out(&ANNA, after(ms)));
        assert_eq!(counts, [1, 2, 3, 3, 3, 1]);
        assert_eq!(wastes.timed_out(&BERT, NOON), 1);
        let many: Vec<u32> = (0..9).map(|ms| wastes.timed_out(&BERT, after(ms))).collect();
        assert_eq!(many, [2, 3, 4, 4, 4, 4, 4, 4, 4]);
    }
}
