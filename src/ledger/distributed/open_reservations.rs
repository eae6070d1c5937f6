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

use super::{
    conversation_day::ConversationDay,
    outage_allowance::{AllowanceUse, LastStoreState, OutageAllowance},
};
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
    /// By hold: the licence of a request; `None` while the store decides on it, or is to cancel it.
    requests: FxHashMap<u64, (LicenseId, Option<OpenReservation>)>,
    licenses: FxHashMap<LicenseId, LicenseState>,
}

/// A granted request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenReservation {
    /// Its hold in the local accounts.
    #[serde(rename = "booked")]
    pub local_hold: u64,
    /// The hold of its message, which may be paid already: it has an id and was granted in an outage.
    #[serde(default)]
    pub message: Option<u64>,
    /// The first of its id that a conversation counts in this outage.
    #[serde(default)]
    pub is_counted: bool,
    pub input: u64,
    pub tokens: u64,
    pub taken: UnixMs,
    /// The group whose message it shares; `None` where it has no id, or that message was charged
    /// before.
    #[serde(with = "gatekeeper_filters::kernel::text")]
    pub group: Option<OpenMessage>,
    /// It is charged a message of its own: it has no id, or is the first of its group.
    pub pays: bool,
    /// The day whose conversations may have counted its message.
    #[serde(default, rename = "talks")]
    pub conversation_day: Option<ConversationDay>,
    /// What it took from the outage allowance, if it was granted without the store.
    #[serde(rename = "leased")]
    pub allowance: Option<AllowanceUse>,
    /// When it was last listed in the store.
    #[serde(skip, default = "Instant::now")]
    pub renewed_at: Instant,
}

/// Names a group of requests that share a message: the end of its key in the store.
pub type OpenMessage = Arc<str>;

/// A settled request that the store still lists as open.
#[derive(Debug, Clone)]
pub struct EndedReservation {
    pub hold: u64,
    /// When it was granted.
    pub taken: UnixMs,
    /// The usage row that it counts in.
    pub about: About,
    /// Its group, and what it settles of the shared message.
    pub group: Option<(OpenMessage, MessageSettlement)>,
    /// As [`OpenReservation::message`].
    pub message: Option<u64>,
    /// It returns its message to the conversations of this day.
    pub returned: Option<ConversationDay>,
}

/// What a request that ends means for the message of its group; the numbers are those of account.lua.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageSettlement {
    /// It is not charged a message.
    Free = 0,
    /// It is charged the message of the group, which another request pays.
    Charged = 1,
    /// It has paid the message of the group.
    Paid = 2,
    /// It is charged the message of the group, and the store does not know that it belongs to the group.
    ChargedUnregistered = 4,
}

/// What this gateway knows of a licence.
#[derive(Default)]
pub struct LicenseState {
    pub last_state: Option<LastStoreState>,
    pub allowance: Option<OutageAllowance>,
    /// The allowance changed since it was last saved.
    pub allowance_changed: bool,
    /// The store has an entry of this process.
    pub is_known: bool,
    holds: FxHashSet<u64>,
    /// Message ids that conversations have counted without the store, until it decides on their messages.
    pub counted_ids: FxHashSet<OpenMessage>,
    /// Settled requests not yet sent to the store.
    ended: Vec<EndedReservation>,
    /// Settled requests that the store has not confirmed: `ended`, and those under way.
    unsynced: usize,
}

/// All open requests, for the hand-over to another process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReservationsState {
    /// The lowest number not yet assigned.
    pub next: u64,
    pub open: Vec<(u64, LicenseId, OpenReservation)>,
    /// The last state of each licence in the store.
    pub seen: Vec<(LicenseId, LastStoreState)>,
}

/// The settlements of a licence that the store does not have yet.
pub struct UnsyncedSettlements {
    pub contribution: LocalShare,
    /// Requests that the contribution includes and the store lists as open.
    pub ended: Vec<EndedReservation>,
    pub reported_before: bool,
}

/// Everything this gateway has to report of a licence: open requests and settled totals.
pub struct FullState {
    pub contribution: LocalShare,
    pub open: Vec<(u64, OpenReservation)>,
    /// The store is deciding on them, or is to cancel them.
    pub pending: Vec<u64>,
    /// Settled requests that the store may list as open.
    pub ended: Vec<EndedReservation>,
    /// Requests with this number or a higher one are not included.
    pub horizon: u64,
    pub reported_before: bool,
}

impl Shard {
    /// Removes a request; the state of its licence.
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

    /// Removes and returns everything that is open.
    pub fn export(&self) -> ReservationsState {
        let mut held =
            ReservationsState { next: self.next.load(Relaxed), ..ReservationsState::default() };
        for shard in &self.shards {
            let mut shard = shard.lock();
            for (hold, (license, open)) in shard.requests.drain() {
                held.open.extend(open.map(|open| (hold, license, open)));
            }
            for (license, local) in &mut shard.licenses {
                local.holds.clear();
                held.seen.extend(local.last_state.map(|last| (*license, last)));
            }
        }
        held
    }

    /// Takes over what was open in another process, before this one grants anything.
    pub fn adopt(&self, held: ReservationsState) {
        self.next.fetch_max(held.next, Relaxed);
        for (license, last) in held.seen {
            self.with(&license, |local| local.last_state = Some(last));
        }
        for (hold, license, open) in held.open {
            let mut shard = self.shard(&license).lock();
            shard.requests.insert(hold, (license, Some(open)));
            shard.licenses.entry(license).or_default().holds.insert(hold);
        }
    }

    /// Registers a request that the store is about to decide on; its hold.
    pub fn begin(&self, license: &LicenseId) -> u64 {
        let mut shard = self.shard(license).lock();
        // Numbered under the lock, so that a full state and its horizon are consistent.
        let hold = (self.next.fetch_add(1, Relaxed) << SHARD_BITS) | index(license) as u64;
        shard.requests.insert(hold, (*license, None));
        shard.licenses.entry(*license).or_default().holds.insert(hold);
        hold
    }

    /// Whether the store knows a licence from this process, and whether settlements of it are unsynced.
    pub fn sync_state(&self, license: &LicenseId) -> (bool, bool) {
        let shard = self.shard(license).lock();
        shard.licenses.get(license).map_or((false, false), |l| (l.is_known, l.unsynced > 0))
    }

    pub fn open(&self, hold: u64, open: OpenReservation) {
        let mut shard = self.shards[hold as usize % SHARDS].lock();
        if let Some((_, request)) = shard.requests.get_mut(&hold) {
            *request = Some(open);
        }
    }

    /// Removes a request that the store was not asked about, has refused or has cancelled.
    pub fn end(&self, hold: u64) {
        self.shards[hold as usize % SHARDS].lock().remove(hold);
    }

    /// Ends a granted request: `charge` settles it in the local accounts and says what that means for its
    /// group. Atomic to [`OpenReservations::take_unsynced`] and [`OpenReservations::full_state`], so that
    /// the store never counts a request both as open and as settled. `None` if it had ended before.
    pub fn settle(
        &self,
        hold: u64,
        about: About,
        charge: impl FnOnce(&mut OpenReservation) -> MessageSettlement,
    ) -> Option<(LicenseId, OpenReservation)> {
        let mut shard = self.shards[hold as usize % SHARDS].lock();
        let (license, open) = shard.requests.get_mut(&hold)?;
        let (license, mut open) = (*license, open.take()?);
        let settlement = charge(&mut open);
        let local = shard.remove(hold)?;
        let group = open.group.clone().map(|group| (group, settlement));
        if let Some(id) = open.group.as_ref().filter(|_| open.is_counted && open.message.is_none())
        {
            local.counted_ids.remove(id);
        }
        let (taken, message) = (open.taken, open.message);
        let returned = open.conversation_day.filter(|_| settlement == MessageSettlement::Free);
        local.ended.push(EndedReservation { hold, taken, about, group, message, returned });
        local.unsynced += 1;
        Some((license, open))
    }

    /// The store has decided that a settled request pays the message of its group after all: `charge`
    /// settles that in the local accounts.
    pub fn settle_late(
        &self,
        license: &LicenseId,
        ended: &EndedReservation,
        charge: impl FnOnce(),
    ) {
        self.with(license, |local| {
            charge();
            local.ended.push(EndedReservation {
                group: None,
                message: None,
                returned: None,
                ..ended.clone()
            });
            local.unsynced += 1;
        });
    }

    /// Takes the settlements of a licence not yet sent; `None` if there are none.
    pub fn take_unsynced(
        &self,
        license: &LicenseId,
        contribution: impl FnOnce() -> LocalShare,
    ) -> Option<UnsyncedSettlements> {
        self.with(license, |local| {
            let ended = std::mem::take(&mut local.ended);
            let is_known = local.is_known;
            (!ended.is_empty()).then(|| UnsyncedSettlements {
                contribution: contribution(),
                ended,
                reported_before: is_known,
            })
        })
    }

    /// Records whether the store has applied these settlements; if not, they are queued again.
    pub fn mark_synced(&self, license: &LicenseId, ended: Vec<EndedReservation>, is_applied: bool) {
        self.with(license, |local| {
            if is_applied {
                local.unsynced = local.unsynced.saturating_sub(ended.len());
                local.is_known = true;
            } else {
                local.ended.splice(0..0, ended);
            }
        });
    }

    /// Whether the store lacks settlements of a licence.
    pub fn has_unsynced(&self, license: &LicenseId) -> bool {
        let shard = self.shard(license).lock();
        shard.licenses.get(license).is_some_and(|local| local.unsynced > 0)
    }

    pub fn with<T>(&self, license: &LicenseId, change: impl FnOnce(&mut LicenseState) -> T) -> T {
        change(self.shard(license).lock().licenses.entry(*license).or_default())
    }

    /// The full state of a licence, to be sent now: its open requests count as renewed.
    pub fn full_state(
        &self,
        license: &LicenseId,
        contribution: impl FnOnce() -> LocalShare,
    ) -> FullState {
        let mut shard = self.shard(license).lock();
        let shard = &mut *shard;
        let mut state = FullState {
            contribution: contribution(),
            open: Vec::new(),
            pending: Vec::new(),
            ended: Vec::new(),
            horizon: self.next.load(Relaxed) << SHARD_BITS,
            reported_before: false,
        };
        let Some(local) = shard.licenses.get_mut(license) else { return state };
        state.reported_before = local.is_known;
        state.ended = std::mem::take(&mut local.ended);
        let now = Instant::now();
        for hold in &local.holds {
            match shard.requests.get_mut(hold) {
                Some((_, Some(open))) => {
                    open.renewed_at = now;
                    state.open.push((*hold, open.clone()));
                }
                Some((_, None)) => state.pending.push(*hold),
                None => {}
            }
        }
        state
    }

    /// Licences with an open request that was not renewed for `age`.
    pub fn not_renewed_for(&self, age: Duration) -> Vec<LicenseId> {
        let mut licenses = FxHashSet::default();
        for shard in &self.shards {
            let shard = shard.lock();
            let old = |open: &OpenReservation| open.renewed_at.elapsed() >= age;
            let requests = shard.requests.values();
            licenses.extend(
                requests.filter(|(_, open)| open.as_ref().is_some_and(old)).map(|(id, _)| *id),
            );
        }
        licenses.into_iter().collect()
    }

    /// Allowances that changed since the last call.
    pub fn take_changed_allowances(&self) -> Vec<(LicenseId, OutageAllowance)> {
        let mut changed = Vec::new();
        for shard in &self.shards {
            for (license, local) in &mut shard.lock().licenses {
                if std::mem::take(&mut local.allowance_changed) {
                    changed.extend(local.allowance.map(|allowance| (*license, allowance)));
                }
            }
        }
        changed
    }

    /// Marks every licence as unknown to the store, which may have lost everything.
    pub fn forget_store_knowledge(&self) {
        for shard in &self.shards {
            shard.lock().licenses.values_mut().for_each(|local| local.is_known = false);
        }
    }

    /// The holds of messages that the store has not decided on yet, at a time when no request is open.
    pub fn take_undecided(&self) -> Vec<u64> {
        let mut messages = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let ended = shard.licenses.values_mut().flat_map(|local| &mut local.ended);
            messages.extend(ended.filter_map(|ended| ended.message.take()));
        }
        messages
    }

    /// Removes licences without a request for a day.
    pub fn sweep(&self, now: UnixMs) {
        for shard in &self.shards {
            shard.lock().licenses.retain(|_, local| {
                let known = local.last_state.is_some_and(|seen| !seen.is_old(now));
                known || local.allowance.is_some() || !local.holds.is_empty() || local.unsynced > 0
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
            local_hold: 0,
            message: None,
            is_counted: false,
            input: 1,
            tokens: 2,
            taken: UnixMs(0),
            group: None,
            pays: true,
            conversation_day: None,
            allowance: None,
            renewed_at: Instant::now(),
        }
    }

    /// The settlements sent match the requests to be closed exactly, however many settle concurrently.
    #[test]
    fn what_is_settled_and_what_ended_agree() {
        const REQUESTS: usize = 20_000;
        let (reservations, license) = (OpenReservations::new(), LicenseId([7; 32]));
        let requests: Vec<u64> = (0..REQUESTS).map(|_| reservations.begin(&license)).collect();
        requests.iter().for_each(|hold| reservations.open(*hold, open()));
        let (settled, mut ended) = (AtomicU64::new(0), 0);
        let contribution =
            || LocalShare { sequence: settled.load(Relaxed), ..LocalShare::default() };
        thread::scope(|scope| {
            let (reservations, settled) = (&reservations, &settled);
            for some in requests.chunks(REQUESTS / 2) {
                scope.spawn(move || {
                    for hold in some {
                        let was_open = reservations.settle(*hold, About::default(), |_| {
                            settled.fetch_add(1, Relaxed);
                            MessageSettlement::Free
                        });
                        assert!(
                            was_open.is_some()
                                && reservations
                                    .settle(*hold, About::default(), |_| MessageSettlement::Free)
                                    .is_none()
                        );
                    }
                });
            }
            while ended < REQUESTS {
                let state = reservations.full_state(&license, contribution);
                let open = state.open.len() + state.pending.len();
                assert_eq!(state.contribution.sequence as usize + open, REQUESTS);
                // Not applied: they are sent again.
                reservations.mark_synced(&license, state.ended, false);
                if let Some(settlements) = reservations.take_unsynced(&license, contribution) {
                    ended += settlements.ended.len();
                    assert_eq!(settlements.contribution.sequence as usize, ended);
                    assert!(reservations.has_unsynced(&license));
                    reservations.mark_synced(&license, settlements.ended, true);
                }
            }
        });
        let rest = reservations.take_unsynced(&license, contribution);
        assert!(rest.is_none() && !reservations.has_unsynced(&license));
    }
}
