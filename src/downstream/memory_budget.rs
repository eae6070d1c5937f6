//! Memory held by requests and answers: in total, per licence and per address.
//!
//! Counts the cost of a held byte, estimated from the growth of the process, not the plain number. Shares
//! of licences and addresses are counted in tables of a fixed size: a request adds to one place in each of
//! two rows, and the smaller of both is the estimate. Two clients that collide in both rows would count as
//! one; with 4,096 places in a row that is one pair in 16 million.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gatekeeper_filters::kernel::LicenseId;

use super::address_block::Block;

/// What the operator is told where too much is held.
pub const FULL: &str = "`server.limits.buffered` is reached";
const FULL_FOR_LICENSE: &str = "its licence holds a quarter of `server.limits.buffered`";
const FULL_FOR_ADDRESS: &str = "its address holds a quarter of `server.limits.buffered`";

/// Beside its bytes, a body that did not come at once with its head has the buffer that it is read through.
const READER: u64 = 64 * 1024;
/// A part of the bytes that comes on top: what allocators round up, and what a JSON document is read with.
const ON_TOP: u64 = 4;

/// What a body of so many bytes costs.
pub fn cost(bytes: u64) -> u64 {
    READER + bytes + bytes / ON_TOP
}

/// The largest body that costs no more than `cost`.
pub fn body_within(cost: u64) -> u64 {
    cost.saturating_sub(READER) / (ON_TOP + 1) * ON_TOP
}

/// Places in a row.
const PLACES: usize = 4096;

/// What each of many holds.
struct ShareTable([Box<[AtomicU64]>; 2]);

/// Where the bytes of a licence or an address are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places([u16; 2]);

impl Places {
    fn of(mixed: u64) -> Self {
        let place = |bits: u64| (bits as usize % PLACES) as u16;
        Self([place(mixed), place(mixed >> 32)])
    }
}

impl Default for ShareTable {
    fn default() -> Self {
        Self([(); 2].map(|()| (0..PLACES).map(|_| AtomicU64::new(0)).collect()))
    }
}

impl ShareTable {
    /// How much is held there now.
    fn take(&self, Places(places): Places, bytes: u64) -> u64 {
        let row = |row: usize| {
            let place = self.0[row].get(usize::from(places[row]));
            place.map_or(0, |place| place.fetch_add(bytes, Relaxed) + bytes)
        };
        row(0).min(row(1))
    }

    fn give(&self, Places(places): Places, bytes: u64) {
        for (row, place) in self.0.iter().zip(places) {
            if let Some(place) = row.get(usize::from(place)) {
                place.fetch_sub(bytes, Relaxed);
            }
        }
    }
}

/// Bytes held by all requests and answers.
#[derive(Default)]
pub struct MemoryBudget {
    used: AtomicU64,
    limit: AtomicU64,
    /// What one licence or address may hold.
    share: AtomicU64,
    licenses: ShareTable,
    addresses: ShareTable,
    /// So that places can't be chosen.
    seed: RandomState,
}

/// One request's share; given back when dropped.
pub struct MemoryPermit {
    of: Arc<MemoryBudget>,
    license: Option<Places>,
    address: Option<Places>,
    /// Bytes of the body, without what they cost beside.
    bytes: u64,
    body: u64,
    answer: u64,
}

impl MemoryBudget {
    /// Sets the limit, and the largest body, in bytes. What is held already stays.
    pub fn resize(&self, limit: u64, body: u64) {
        self.limit.store(limit, Relaxed);
        self.share.store((limit / 4).max(cost(body)), Relaxed);
    }

    /// For what belongs to no licence.
    pub fn share(self: &Arc<Self>) -> MemoryPermit {
        self.share_of(None, None)
    }

    pub fn share_of(
        self: &Arc<Self>,
        license: Option<&LicenseId>,
        address: Option<IpAddr>,
    ) -> MemoryPermit {
        // Of IPv6 the network that one household has.
        // A licence's id is a keyed hash already.
        let license = license.map(|LicenseId([a, b, c, d, e, f, g, h, ..])| {
            Places::of(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        });
        let address = address.map(|address| Places::of(self.seed.hash_one(Block::of(address))));
        MemoryPermit { of: self.clone(), license, address, bytes: 0, body: 0, answer: 0 }
    }
}

impl MemoryPermit {
    /// Takes so many bytes more of a body; whether it `is_whole` with them.
    ///
    /// # Errors
    /// Whose share is used up. They are counted in any case.
    pub fn grow(&mut self, bytes: usize, is_whole: bool) -> Result<(), &'static str> {
        let is_first = self.bytes == 0;
        self.bytes += bytes as u64;
        // What came at once needs no reader of its own.
        let cost = if is_first && is_whole { cost(self.bytes) - READER } else { cost(self.bytes) };
        let more = cost.saturating_sub(self.body);
        self.body += more;
        self.take(more)
    }

    fn take(&self, more: u64) -> Result<(), &'static str> {
        let share = self.of.share.load(Relaxed);
        let over = |table: &ShareTable, places: Option<Places>| {
            places.is_some_and(|places| table.take(places, more) > share)
        };
        let all = self.of.used.fetch_add(more, Relaxed) + more;
        let license = over(&self.of.licenses, self.license);
        let address = over(&self.of.addresses, self.address);
        if all > self.of.limit.load(Relaxed) {
            return Err(FULL);
        }
        match (license, address) {
            (true, _) => Err(FULL_FOR_LICENSE),
            (_, true) => Err(FULL_FOR_ADDRESS),
            _ => Ok(()),
        }
    }

    fn give(&self, bytes: u64) {
        self.of.used.fetch_sub(bytes, Relaxed);
        if let Some(places) = self.license {
            self.of.licenses.give(places, bytes);
        }
        if let Some(places) = self.address {
            self.of.addresses.give(places, bytes);
        }
    }

    /// Sets how many bytes of an answer are held; whether they fit.
    pub fn set_answer(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.answer, bytes as u64);
        match self.answer.checked_sub(before) {
            Some(0) => true,
            Some(more) => self.take(more).is_ok(),
            None => {
                self.give(before - self.answer);
                true
            }
        }
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        self.give(self.body + self.answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> LicenseId {
        LicenseId([byte; 32])
    }

    fn of(limit: u64) -> Arc<MemoryBudget> {
        let buffered = Arc::new(MemoryBudget::default());
        buffered.resize(limit, 1);
        buffered
    }

    #[test]
    fn bodies_and_answers_share_one_limit_and_give_back_what_they_took() {
        let buffered = of(1_000_000);
        let (mut one, mut other) = (buffered.share(), buffered.share());
        assert!(one.grow(480_000, true).is_ok() && other.set_answer(400_000));
        assert!(other.set_answer(400_000), "nothing more is nothing to refuse");
        assert!(!other.set_answer(400_001));
        assert!(other.set_answer(0) && one.set_answer(400_000));
        assert_eq!(other.grow(1, true), Err(FULL));
        drop(one);
        assert!(other.grow(700_000, true).is_ok());
        drop(other);
        assert_eq!(buffered.used.load(Relaxed), 0);
    }

    #[test]
    fn a_body_costs_its_reader_unless_it_came_at_once() {
        let buffered = of(10_000_000);
        let mut held = buffered.share();
        held.grow(4000, true).unwrap();
        assert_eq!(held.body, 5000);
        let mut held = buffered.share();
        held.grow(4000, false).unwrap();
        assert_eq!(held.body, cost(4000));
        held.grow(4000, true).unwrap();
        assert_eq!(held.body, cost(8000));
        assert!(cost(body_within(1_000_000)) <= 1_000_000 && body_within(1) == 0);
        assert!(cost(body_within(1_000_000)) > 999_000);
    }

    #[test]
    fn a_licence_and_an_address_hold_a_quarter_and_at_least_one_body() {
        let buffered = of(4_000_000);
        let address = Some("192.0.2.1".parse().unwrap());
        let mut first = buffered.share_of(Some(&id(1)), address);
        first.grow(700_000, true).unwrap();
        let mut second = buffered.share_of(Some(&id(1)), None);
        assert_eq!(second.grow(200_000, true), Err(FULL_FOR_LICENSE));
        let mut neighbour = buffered.share_of(Some(&id(2)), address);
        assert_eq!(neighbour.grow(200_000, true), Err(FULL_FOR_ADDRESS));
        drop((second, neighbour));
        let mut other = buffered.share_of(Some(&id(3)), Some("192.0.2.2".parse().unwrap()));
        other.grow(700_000, true).unwrap();
        drop(first);
        buffered.share_of(Some(&id(1)), address).grow(790_000, true).unwrap();
        buffered.resize(4_000_000, 3_000_000);
        buffered.share_of(Some(&id(1)), address).grow(1_500_000, true).unwrap();
        drop(other);
        let empty =
            |table: &ShareTable| table.0.iter().all(|row| row.iter().all(|n| n.load(Relaxed) == 0));
        assert!(empty(&buffered.licenses) && empty(&buffered.addresses));
    }
}
