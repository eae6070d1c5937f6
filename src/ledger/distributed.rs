//! The ledger of several gateways: every reservation is decided in Redis, which they share.
//!
//! ```text
//! reserve ──► Redis (one script: rate, places, messages, tokens) ──► local accounts, journal ──► granted
//! settle  ──► local accounts, journal ──► sync queue ──► Redis: "settled by this gateway so far" and
//!                                                        the requests that ended, in one script
//! ```
//! Each gateway counts what it settles in a ledger of its own ([`EmbeddedLedger`]: journal, SQLite) and
//! sends Redis the total, never the increment. So a repeated, late or reordered message changes nothing,
//! and whatever Redis loses (a restart, a failover, FLUSHALL) is complete again once every gateway has
//! resynchronised. Open requests are listed in Redis by name; one that is not renewed for a minute is
//! presumed charged until its gateway reports again.
//!
//! Guarantees beyond those of [`super`]:
//! - While Redis answers: of N concurrent requests at any number of gateways against a limit of L
//!   messages, exactly min(N, L) are granted.
//! - While it does not, a licence spends its outage allowance at most ([`outage_allowance`]), or nothing
//!   (`closed`). 402 and 403 are never sent without a decision.
//! - After Redis lost data, a gateway grants allowances only, until all gateways that are alive have
//!   resynchronised (1.5 s at most, where one of them can't).
//! - Of the requests that share a message by an id, one owns the message and is charged as a request
//!   without an id is; the others are charged nothing. Only if the owner's charge is returned while
//!   another one is charged does Redis report that the message is still to be paid.
//! - A request with an id that is granted during an outage holds a message of its own in the local
//!   accounts until Redis is back and reports whether the message of that id is paid already.
//! - During an outage each gateway counts conversations by itself, from zero; requests of one id once.
//! - A request that was abandoned, or whose reply came late, leaves nothing open: it is cancelled by its
//!   name, before or after it reaches Redis.
//! - Operators' adjustments are recorded by the gateway that took them and sent as its totals are, so
//!   none is lost with Redis and none counts twice.

mod conversation_day;
mod late;
mod open_reservations;
pub mod operator_actions;
mod outage;
mod outage_allowance;
mod pending_reserve;
mod refusal;
mod reserve;
mod resync;
mod resync_barrier;
mod resync_queue;
mod script_reply;
mod scripts;
mod sync;
mod sync_message;
mod upgrade;

pub use self::{
    open_reservations::ReservationsState, outage_allowance::AllowanceRow, scripts::KeyNaming,
};

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use gatekeeper_filters::kernel::{
    Balance, Charge, Demand, Denied, Grant, Ledger, LicenseId, Limit, RateRefused, RateRequest,
    Record, StoreDown, UnixMs,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use self::{
    open_reservations::{MessageSettlement, OpenReservations},
    outage_allowance::OutageAllowance,
    resync_barrier::ResyncBarrier,
    scripts::{GatewayId, Scripts},
    sync_message::SyncMessage,
};
use super::{EmbeddedLedger, windows::Windows};
use crate::{config::settings::OnStoreDown, redis_store::RedisStore};

/// How long a request without an allowance waits in all.
const WAIT_WITHOUT_ALLOWANCE: Duration = Duration::from_secs(1);
/// Script calls for one reservation: the clock may need correction, and settlements a sync.
const MAX_ATTEMPTS: usize = 3;

pub struct DistributedLedger {
    local: Arc<EmbeddedLedger>,
    store: Arc<RedisStore>,
    gateway_id: GatewayId,
    on_down: OnStoreDown,
    scripts: Scripts,
    reservations: OpenReservations,
    /// The store's clock minus the local one, in milliseconds.
    clock_offset: AtomicI64,
    /// The last loss of the store ([`RedisStore::losses`]) from which this gateway has recovered.
    resynced_loss: AtomicU64,
    sync_queue: mpsc::UnboundedSender<SyncMessage>,
    /// Settlements reached the store.
    synced: Notify,
    /// A resync is complete.
    resynced: Notify,
    barrier: Mutex<ResyncBarrier>,
    /// The ledger was handed over to another process.
    handed_over: AtomicBool,
}

impl DistributedLedger {
    /// # Errors
    /// The database of this gateway fails.
    pub fn open(
        local: Arc<EmbeddedLedger>,
        store: Arc<RedisStore>,
        on_down: OnStoreDown,
        naming: KeyNaming,
    ) -> rusqlite::Result<Arc<Self>> {
        let (gateway, boot) = local.identity()?;
        let allowances = local.db.lock().leases()?;
        let (sync_queue, messages) = mpsc::unbounded_channel();
        let ledger = Arc::new(Self {
            local,
            store,
            gateway_id: GatewayId { gateway, boot: AtomicU64::new(boot) },
            on_down,
            scripts: Scripts::new(naming),
            reservations: OpenReservations::new(),
            clock_offset: AtomicI64::new(0),
            resynced_loss: AtomicU64::new(0),
            sync_queue,
            synced: Notify::new(),
            resynced: Notify::new(),
            barrier: Mutex::default(),
            handed_over: AtomicBool::new(false),
        });
        for (license, rows) in allowances {
            ledger
                .reservations
                .with(&license, |local| local.allowance = Some(OutageAllowance::restored(rows)));
        }
        ledger.store.spawn(ledger.clone().run_sync(messages));
        Ok(ledger)
    }

    /// Whether requests are decided on the store.
    pub fn is_up(&self) -> bool {
        self.store.is_up() && self.resynced_loss.load(Relaxed) == *self.store.losses().borrow()
    }

    /// The time by the store's clock.
    fn now(&self) -> UnixMs {
        UnixMs(UnixMs::now().0.saturating_add_signed(self.clock_offset.load(Relaxed)))
    }

    fn correct_clock(&self, store: UnixMs) {
        self.clock_offset.store(store.0 as i64 - UnixMs::now().0 as i64, Relaxed);
    }

    fn windows(&self) -> Windows {
        thread_local! {
            static LAST: RefCell<Windows> = RefCell::default();
        }
        LAST.with_borrow_mut(|windows| *windows.turn(self.now()))
    }

    /// Waits until requests are decided on the store.
    async fn until_up(&self) {
        loop {
            let (mut ups, resynced) = (self.store.ups(), self.resynced.notified());
            if self.is_up() {
                return;
            }
            tokio::select! {
                _ = ups.changed() => {}
                () = resynced => {}
            }
        }
    }
}

#[async_trait]
impl Ledger for DistributedLedger {
    /// Counts the requests of this gateway only; [`Ledger::reserve`] counts those of all gateways.
    async fn enter(&self, pace: &RateRequest, now: UnixMs) -> Result<(), RateRefused> {
        self.local.enter(pace, now).await
    }

    fn leave(&self, license: &LicenseId) {
        self.local.leave(license);
    }

    async fn reserve(&self, demand: &Demand) -> Result<Grant, Denied> {
        self.decide(demand).await
    }

    fn settle(&self, hold: u64, charge: Charge) {
        let (message, tokens) = (charge.message, charge.tokens);
        let about = charge.about.clone().unwrap_or_default();
        let charged = self.reservations.settle(hold, about, |open| {
            // The message of a group is charged to the request that owns it.
            self.local.settle(open.local_hold, Charge { message: message && open.pays, ..charge });
            // What costs nothing needs no decision of the store.
            if let Some(hold) = open.message.take_if(|_| !message) {
                self.local.settle(hold, Charge::NOTHING);
            }
            match (message, open.pays) {
                (true, true) => MessageSettlement::Paid,
                (true, false) if open.message.is_some() => MessageSettlement::ChargedUnregistered,
                (true, false) => MessageSettlement::Charged,
                (false, _) => MessageSettlement::Free,
            }
        });
        let Some((license, open)) = charged else { return };
        if let Some(used) = open.allowance {
            self.settle_allowance(&license, used, message, tokens);
        }
        let _ = self.sync_queue.send(SyncMessage::Settled { license });
    }

    async fn balance(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
        _now: UnixMs,
    ) -> Result<Balance, StoreDown> {
        self.balance_of(license, messages, tokens).await
    }

    fn record(&self, record: Record) {
        self.local.record(record);
    }
}
