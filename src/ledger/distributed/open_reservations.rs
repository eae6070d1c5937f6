//! Open reservations of this gateway and settlements not yet sent to Redis, in shards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{About, LicenseId, UnixMs};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::outage_allowance::{AllowanceUse, LastStoreState, OutageAllowance};
use crate::ledger::account::LocalShare;

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;

#[derive(Default)]
pub struct OpenReservations {
    shards: Box<[Mutex<Shard>]>,
    next: AtomicU64,
}

#[derive(Default)]
struct Shard {
    /// By hold: which licence a request is of; `None` while the store is asked, or is to cancel it.
    requests: FxHashMap<u64, (LicenseId, Option<OpenReservation>)>,
    licenses: FxHashMap<LicenseId, LicenseState>,
}

/// A granted request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenReservation {
    /// Its hold in this gateway's own book.
    pub booked: u64,
    /// That of its message, which may be paid already: it has an id, and was granted without the store.
    #[serde(default)]
    pub message: Option<u64>,
    pub input: u64,
    pub tokens: u64,
    pub taken: UnixMs,
    /// The group whose message it shares; `None` where it has no id, or that message was charged
    /// before.
    #[serde(with = "gatekeeper_filters::kernel::text")]
    pub group: Option<OpenMessage>,
    /// It stands on a message of its own: it has no id, or is the first of its group.
    pub pays: bool,
    /// Granted without the store.
    pub leased: Option<AllowanceUse>,
    /// When the store last heard of it.
    #[serde(skip, default = "Instant::now")]
    pub told: Instant,
}

/// Requests that share a message, by the end of their key on the store.
pub type OpenMessage = Arc<str>;

/// A settled request of which the store has yet to be told.
#[derive(Debug, Clone)]
pub struct EndedReservation {
    pub hold: u64,
    /// When it was taken.
    pub taken: UnixMs,
    /// The row that it counts in.
    pub about: About,
    /// What it leaves, and how.
    pub group: Option<(OpenMessage, Remaining)>,
    /// As [`OpenReservation::message`].
    pub message: Option<u64>,
}

/// How a request leaves its group; the numbers are those of account.lua.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// It costs no message.
    Free = 0,
    /// It costs the message of the group, which another one pays.
    Costs = 1,
    /// It has paid the message of the group.
    Paid = 2,
    /// It costs the message of the group, of which the store never heard that it is in it.
    CostsUnheard = 4,
}

/// What is remembered of a licence.
#[derive(Default)]
pub struct LicenseState {
    pub seen: Option<LastStoreState>,
    pub lease: Option<OutageAllowance>,
    /// The lease changed since it was last kept.
    pub leased: bool,
    /// The store has heard of it from this process.
    pub spoken: bool,
    holds: FxHashSet<u64>,
    /// Settled requests of which the store has yet to be told.
    ended: Vec<EndedReservation>,
    /// How many settled requests the store has not heard of: `ended`, and those on their way.
    untold: usize,
}

/// What is open, for another process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReservationsState {
    /// Numbers below it were given out.
    pub next: u64,
    pub open: Vec<(u64, LicenseId, OpenReservation)>,
    /// What the store said last of each licence.
    pub seen: Vec<(LicenseId, LastStoreState)>,
}

/// What the store has not heard of a licence.
pub struct UnsyncedSettlements {
    pub contribution: LocalShare,
    /// Requests that the contribution has in it, and the store as open.
    pub ended: Vec<EndedReservation>,
    pub has_spoken: bool,
}

/// All that is open of a licence, and what was settled by then.
pub struct FullState {
    pub contribution: LocalShare,
    pub open: Vec<(u64, OpenReservation)>,
    /// The store is being asked, or is to cancel them.
    pub pending: Vec<u64>,
    /// Settled requests that the store may have as open.
    pub ended: Vec<EndedReservation>,
    /// Later requests are not among them.
    pub horizon: u64,
    pub has_spoken: bool,
}

impl Shard {
    /// What is remembered of the licence of a request that was there until now.
    fn remove(&mut self, hold: u64) -> Option<&mut LicenseState> {
        let (license, _) = self.requests.remove(&hold)?;
        let local = self.licenses.get_mut(&license)?;
        local.holds.remove(&hold);
        Some(local)
    }
}

impl OpenReservations {
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), next: AtomicU64::new(1) }
    }

    fn shard(&self, license: &LicenseId) -> &Mutex<Shard> {
        &self.shards[index(license)]
    }

    /// Everything that is open, which is nowhere here from now on.
    pub fn give(&self) -> ReservationsState {
        let mut held =
            ReservationsState { next: self.next.load(Relaxed), ..ReservationsState::default() };
        for shard in &self.shards {
            let mut shard = shard.lock();
            for (hold, (license, open)) in shard.requests.drain() {
                held.open.extend(open.map(|open| (hold, license, open)));
            }
            for (license, local) in &mut shard.licenses {
                local.holds.clear();
                held.seen.extend(local.seen.map(|seen| (*license, seen)));
            }
        }
        held
    }

    /// What was open elsewhere. Nothing was asked for before here.
    pub fn adopt(&self, held: ReservationsState) {
        self.next.fetch_max(held.next, Relaxed);
        for (license, seen) in held.seen {
            self.with(&license, |local| local.seen = Some(seen));
        }
        for (hold, license, open) in held.open {
            let mut shard = self.shard(&license).lock();
            shard.requests.insert(hold, (license, Some(open)));
            shard.licenses.entry(license).or_default().holds.insert(hold);
        }
    }

    /// A request that the store will be asked about.
    pub fn begin(&self, license: &LicenseId) -> u64 {
        let mut shard = self.shard(license).lock();
        // Numbered under the lock, so that a list and its horizon belong together.
        let hold = (self.next.fetch_add(1, Relaxed) << SHARD_BITS) | index(license) as u64;
        shard.requests.insert(hold, (*license, None));
        shard.licenses.entry(*license).or_default().holds.insert(hold);
        hold
    }

    /// Whether the store has heard of a licence, and whether it has still to hear of something settled.
    pub fn heard(&self, license: &LicenseId) -> (bool, bool) {
        let shard = self.shard(license).lock();
        shard.licenses.get(license).map_or((false, false), |l| (l.spoken, l.untold > 0))
    }

    pub fn open(&self, hold: u64, open: OpenReservation) {
        let mut shard = self.shards[hold as usize % SHARDS].lock();
        if let Some((_, request)) = shard.requests.get_mut(&hold) {
            *request = Some(open);
        }
    }

    /// The store was asked for nothing, or in vain, or has cancelled it.
    pub fn end(&self, hold: u64) {
        self.shards[hold as usize % SHARDS].lock().remove(hold);
    }

    /// `charge` writes into the own book what a granted request costs, and says how it leaves its
    /// group; the request is over. To [`OpenReservations::news`] and [`OpenReservations::list`] both happen at once, so that
    /// the store never counts a request as open and as settled. `None` when it was over before.
    pub fn settle(
        &self,
        hold: u64,
        about: About,
        charge: impl FnOnce(&OpenReservation) -> Remaining,
    ) -> Option<(LicenseId, OpenReservation)> {
        let mut shard = self.shards[hold as usize % SHARDS].lock();
        let (license, open) = shard.requests.get_mut(&hold)?;
        let (license, open) = (*license, open.take()?);
        let left = charge(&open);
        let local = shard.remove(hold)?;
        let group = open.group.clone().map(|group| (group, left));
        let (taken, message) = (open.taken, open.message);
        local.ended.push(EndedReservation { hold, taken, about, group, message });
        local.untold += 1;
        Some((license, open))
    }

    /// The store has decided that a settled request pays the message of its group after all. `charge`
    /// writes it into the own book.
    pub fn settle_late(
        &self,
        license: &LicenseId,
        ended: &EndedReservation,
        charge: impl FnOnce(),
    ) {
        self.with(license, |local| {
            charge();
            local.ended.push(EndedReservation { group: None, message: None, ..ended.clone() });
            local.untold += 1;
        });
    }

    /// What the store has not heard of a licence; `None` when that is nothing, or on its way.
    pub fn news(
        &self,
        license: &LicenseId,
        contribution: impl FnOnce() -> LocalShare,
    ) -> Option<UnsyncedSettlements> {
        self.with(license, |local| {
            let ended = std::mem::take(&mut local.ended);
            let has_spoken = local.spoken;
            (!ended.is_empty()).then(|| UnsyncedSettlements {
                contribution: contribution(),
                ended,
                has_spoken,
            })
        })
    }

    /// The store was told of settled requests of a licence; whether it took that. If not, it is told
    /// again.
    pub fn told(&self, license: &LicenseId, ended: Vec<EndedReservation>, took: bool) {
        self.with(license, |local| {
            if took {
                local.untold = local.untold.saturating_sub(ended.len());
                local.spoken = true;
            } else {
                local.ended.splice(0..0, ended);
            }
        });
    }

    /// Whether the store has still to hear of something settled.
    pub fn is_untold(&self, license: &LicenseId) -> bool {
        let shard = self.shard(license).lock();
        shard.licenses.get(license).is_some_and(|local| local.untold > 0)
    }

    pub fn with<T>(&self, license: &LicenseId, change: impl FnOnce(&mut LicenseState) -> T) -> T {
        change(self.shard(license).lock().licenses.entry(*license).or_default())
    }

    /// What is open of a licence. The store hears of it now.
    pub fn list(
        &self,
        license: &LicenseId,
        contribution: impl FnOnce() -> LocalShare,
    ) -> FullState {
        let mut shard = self.shard(license).lock();
        let shard = &mut *shard;
        let mut listed = FullState {
            contribution: contribution(),
            open: Vec::new(),
            pending: Vec::new(),
            ended: Vec::new(),
            horizon: self.next.load(Relaxed) << SHARD_BITS,
            has_spoken: false,
        };
        let Some(local) = shard.licenses.get_mut(license) else { return listed };
        listed.has_spoken = local.spoken;
        listed.ended = std::mem::take(&mut local.ended);
        let now = Instant::now();
        for hold in &local.holds {
            match shard.requests.get_mut(hold) {
                Some((_, Some(open))) => {
                    open.told = now;
                    listed.open.push((*hold, open.clone()));
                }
                Some((_, None)) => listed.pending.push(*hold),
                None => {}
            }
        }
        listed
    }

    /// Licences with a request that the store has not heard of for `age`.
    pub fn untold_for(&self, age: Duration) -> Vec<LicenseId> {
        let mut licenses = FxHashSet::default();
        for shard in &self.shards {
            let shard = shard.lock();
            let old = |open: &OpenReservation| open.told.elapsed() >= age;
            let requests = shard.requests.values();
            licenses.extend(
                requests.filter(|(_, open)| open.as_ref().is_some_and(old)).map(|(id, _)| *id),
            );
        }
        licenses.into_iter().collect()
    }

    /// Leases that changed since the last call.
    pub fn take_leases(&self) -> Vec<(LicenseId, OutageAllowance)> {
        let mut leases = Vec::new();
        for shard in &self.shards {
            for (license, local) in &mut shard.lock().licenses {
                if std::mem::take(&mut local.leased) {
                    leases.extend(local.lease.map(|lease| (*license, lease)));
                }
            }
        }
        leases
    }

    /// The store may have lost everything.
    pub fn forget_spoken(&self) {
        for shard in &self.shards {
            shard.lock().licenses.values_mut().for_each(|local| local.spoken = false);
        }
    }

    /// The holds of messages of which the store has yet to say who pays them; no request is open.
    pub fn take_undecided(&self) -> Vec<u64> {
        let mut messages = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let ended = shard.licenses.values_mut().flat_map(|local| &mut local.ended);
            messages.extend(ended.filter_map(|ended| ended.message.take()));
        }
        messages
    }

    /// Forgets licences that nobody used for a day.
    pub fn sweep(&self, now: UnixMs) {
        for shard in &self.shards {
            shard.lock().licenses.retain(|_, local| {
                let known = local.seen.is_some_and(|seen| !seen.is_old(now));
                known || local.lease.is_some() || !local.holds.is_empty() || local.untold > 0
            });
        }
    }
}

fn index(license: &LicenseId) -> usize {
    usize::from(license.0[0]) % SHARDS
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn open() -> OpenReservation {
        OpenReservation {
            booked: 0,
            message: None,
            input: 1,
            tokens: 2,
            taken: UnixMs(0),
            group: None,
            pays: true,
            leased: None,
            told: Instant::now(),
        }
    }

    /// What the store is told of settled requests is exactly what it is told to close, however many
    /// settle meanwhile.
    #[test]
    fn what_is_settled_and_what_ended_agree() {
        const REQUESTS: usize = 20_000;
        let (holds, license) = (OpenReservations::new(), LicenseId([7; 32]));
        let requests: Vec<u64> = (0..REQUESTS).map(|_| holds.begin(&license)).collect();
        requests.iter().for_each(|hold| holds.open(*hold, open()));
        let (settled, mut ended) = (AtomicU64::new(0), 0);
        let contribution =
            || LocalShare { sequence: settled.load(Relaxed), ..LocalShare::default() };
        thread::scope(|scope| {
            let (holds, settled) = (&holds, &settled);
            for some in requests.chunks(REQUESTS / 2) {
                scope.spawn(move || {
                    for hold in some {
                        let was_open = holds.settle(*hold, About::default(), |_| {
                            settled.fetch_add(1, Relaxed);
                            Remaining::Free
                        });
                        assert!(
                            was_open.is_some()
                                && holds
                                    .settle(*hold, About::default(), |_| Remaining::Free)
                                    .is_none()
                        );
                    }
                });
            }
            while ended < REQUESTS {
                let listed = holds.list(&license, contribution);
                let open = listed.open.len() + listed.pending.len();
                assert_eq!(listed.contribution.sequence as usize + open, REQUESTS);
                // Not told: they are told again.
                holds.told(&license, listed.ended, false);
                if let Some(news) = holds.news(&license, contribution) {
                    ended += news.ended.len();
                    assert_eq!(news.contribution.sequence as usize, ended);
                    assert!(holds.is_untold(&license));
                    holds.told(&license, news.ended, true);
                }
            }
        });
        assert!(holds.news(&license, contribution).is_none() && !holds.is_untold(&license));
    }
}
