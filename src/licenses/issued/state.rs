//! State of this process about issued licences: locks, ids seen at other gateways, throttles.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::licenses::address_throttle::AddressThrottle;

/// Maximum number of concurrent changes of different licences.
const LOCKS: usize = 64;
const REMEMBERED: u64 = 20_000;
/// How long an answer about a session that made no licence is kept.
pub const MISS: Duration = Duration::from_secs(60);
/// How long a webhook's word that a session exists is remembered.
const ANNOUNCED: Duration = Duration::from_secs(72 * 3600);

/// What a lock protects. Records of one kind share [`LOCKS`] of them, so a task holds at most one of each kind, and
/// waits for one only while it holds none of a kind that stands before it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    License,
    Order,
    /// A look for lost events, which carries out orders.
    Sweep,
}

/// Locks of licences, orders and sweeps within this process.
pub struct IssuedLocks([Vec<tokio::sync::Mutex<()>>; 3]);

impl Default for IssuedLocks {
    fn default() -> Self {
        Self([(); 3].map(|()| (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect()))
    }
}

impl IssuedLocks {
    pub fn of(&self, kind: LockKind, id: &LicenseId) -> &tokio::sync::Mutex<()> {
        &self.0[kind as usize][usize::from(id.0[0]) % LOCKS]
    }
}

/// Ids reported by other gateways that are not known here yet.
#[derive(Default)]
pub struct Roster {
    /// A source of our own licences is configured.
    pub is_kept: AtomicBool,
    pub heard: Mutex<Vec<LicenseId>>,
    /// Messages may have been lost: all of them are compared.
    pub is_lost: AtomicBool,
    pub news: Notify,
}

impl Roster {
    /// A record that is not known here changed at another gateway.
    pub fn hear(&self, id: LicenseId) {
        if self.is_kept.load(Relaxed) {
            self.heard.lock().push(id);
            self.news.notify_one();
        }
    }

    pub fn lost(&self) {
        self.is_lost.store(true, Relaxed);
        self.news.notify_one();
    }
}

/// When what was last done, in milliseconds.
#[derive(Default)]
pub struct Tended {
    pub tidied: AtomicU64,
    /// When events are read next; 0 before the first time.
    pub next_sweep: AtomicU64,
}

/// What became of a purchase that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurchaseOutcome {
    Licensed(LicenseId),
    /// The money may still come.
    Unpaid,
    Refunded,
    /// Not sold here, of the other mode, or over without a payment.
    Foreign,
}

/// What tries at `/claim` left behind.
pub struct ClaimState {
    pub addresses: AddressThrottle,
    pub asked: Mutex<VecDeque<Instant>>,
    pub announced: Cache<String, ()>,
    pub misses: Cache<String, (PurchaseOutcome, Instant)>,
}

impl Default for ClaimState {
    fn default() -> Self {
        Self {
            addresses: AddressThrottle::default(),
            asked: Mutex::default(),
            announced: Cache::builder().max_capacity(REMEMBERED).time_to_live(ANNOUNCED).build(),
            misses: Cache::builder().max_capacity(REMEMBERED).time_to_live(MISS).build(),
        }
    }
}

/// When each key was last activated.
pub struct AppThrottle(pub Cache<LicenseId, Arc<Mutex<Vec<UnixMs>>>>);

impl Default for AppThrottle {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(65_536).time_to_idle(MISS).build())
    }
}

/// All of it.
#[derive(Default)]
pub struct IssuedState {
    pub locks: IssuedLocks,
    pub roster: Roster,
    pub tended: Tended,
    pub claims: ClaimState,
    pub app_throttle: AppThrottle,
}
