//! The ledger of several gateways: they decide together, on the store they share.
//!
//! ```text
//! reserve ──► store (one script: rate, places, messages, tokens) ──► own book and journal ──► granted
//! settle  ──► own book and journal ──► queue ──► store: "this is what I have settled so far, and these
//!                                                 requests are over", in one script
//! ```
//! Each gateway counts what it settles itself, in the ledger of one machine ([`EmbeddedLedger`]: journal,
//! SQLite), and tells the store the sum, not the step. So telling it twice, late or out of order
//! changes nothing, and whatever the store loses (a restart, a failover, FLUSHALL) is whole again
//! when each gateway has spoken. What is open is on the store by name; a request that is not renewed
//! for a minute is presumed charged until its gateway speaks again.
//!
//! What holds, beside what [`super`] promises:
//! - While the store answers, N requests at once at any number of gateways against a limit of L
//!   messages: exactly min(N, L) are granted.
//! - While it does not, a licence spends a lease at most ([`outage_allowance`]), or nothing (`closed`). 402 and
//!   403 are never said without a decision.
//! - Until the gateways that live have put back what the store may have lost, they grant nothing but
//!   leases (for a second and a half at most, where one of them can't).
//! - Requests that share a message by an id: one of them owns it and pays as a request alone does, the
//!   others pay nothing. Only where the owner gives back what another one costs does the store say so.
//! - A request with an id that is granted without the store has a message of its own in the own book until
//!   the store is back and says whether that of its id is paid already.
//! - A request that was given up, or whose answer came late, leaves nothing open: it is cancelled by its
//!   name, before or after it reaches the store.
//! - What operators give through a gateway is kept and told as its own sums are, so nothing is lost
//!   with the store, and nothing counts twice.

mod late;
mod open_reservations;
pub mod operator_actions;
mod outage_allowance;
mod resync_barrier;
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
    time::{Duration, Instant},
};

use async_trait::async_trait;
use gatekeeper_filters::kernel::{
    Balance, Charge, Demand, Denied, Grant, Ledger, LicenseId, Limit, LimitUsage, RateRefused,
    RateRequest, Record, StoreDown, UnixMs,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use self::{
    open_reservations::{OpenMessage, OpenReservation, OpenReservations, Remaining},
    outage_allowance::{LastStoreState, OutageAllowance},
    resync_barrier::ResyncBarrier,
    script_reply::{LimitCount, MessageRole, ScriptReply},
    scripts::{CancelArgs, GatewayId, ReserveArgs, Scripts},
    sync_message::SyncMessage,
};
use super::{EmbeddedLedger, windows::Windows};
use crate::{
    config::settings::OnStoreDown,
    redis_store::{RedisStore, StoreFailure, wait_budget::WaitBudget},
};

/// How long a request that only just does not fit waits for what this gateway has still to tell.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a request waits for the store that can be granted without it.
const WITH_LEASE: Duration = Duration::from_millis(100);
/// How long one waits in all that can't.
const WITHOUT_LEASE: Duration = Duration::from_secs(1);
/// Between two questions about one request.
const AGAIN: Duration = Duration::from_millis(5);
/// Script calls for one reservation: the clock may be corrected, and what was settled told.
const TRIES: usize = 3;

pub struct DistributedLedger {
    local: Arc<EmbeddedLedger>,
    store: Arc<RedisStore>,
    speaker: GatewayId,
    on_down: OnStoreDown,
    scripts: Scripts,
    holds: OpenReservations,
    /// The store's clock minus ours, in milliseconds.
    clock: AtomicI64,
    /// The loss of the store ([`RedisStore::losses`]) after which everything was put back.
    whole: AtomicU64,
    said: mpsc::UnboundedSender<SyncMessage>,
    /// Something settled has been told.
    told: Notify,
    /// Everything was put back.
    came_back: Notify,
    peers: Mutex<ResyncBarrier>,
    /// Another process speaks for this gateway.
    away: AtomicBool,
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
        let leases = local.db.lock().leases()?;
        let (said, hearing) = mpsc::unbounded_channel();
        let shared = Arc::new(Self {
            local,
            store,
            speaker: GatewayId { gateway, boot: AtomicU64::new(boot) },
            on_down,
            scripts: Scripts::new(naming),
            holds: OpenReservations::new(),
            clock: AtomicI64::new(0),
            whole: AtomicU64::new(0),
            said,
            told: Notify::new(),
            came_back: Notify::new(),
            peers: Mutex::default(),
            away: AtomicBool::new(false),
        });
        for (license, kept) in leases {
            shared
                .holds
                .with(&license, |local| local.lease = Some(OutageAllowance::restored(kept)));
        }
        shared.store.spawn(shared.clone().speak(hearing));
        Ok(shared)
    }

    /// Whether requests are decided on the store.
    pub fn is_up(&self) -> bool {
        self.store.is_up() && self.whole.load(Relaxed) == *self.store.losses().borrow()
    }

    /// The time by the store's clock.
    fn now(&self) -> UnixMs {
        UnixMs(UnixMs::now().0.saturating_add_signed(self.clock.load(Relaxed)))
    }

    fn correct_clock(&self, store: UnixMs) {
        self.clock.store(store.0 as i64 - UnixMs::now().0 as i64, Relaxed);
    }

    fn windows(&self) -> Windows {
        thread_local! {
            static LAST: RefCell<Windows> = RefCell::default();
        }
        LAST.with_borrow_mut(|windows| *windows.turn(self.now()))
    }

    /// Until requests are decided on the store.
    async fn is_back(&self) {
        loop {
            let (mut ups, came_back) = (self.store.ups(), self.came_back.notified());
            if self.is_up() {
                return;
            }
            tokio::select! {
                _ = ups.changed() => {}
                () = came_back => {}
            }
        }
    }

    /// Asks the store. `Err` when it does not decide.
    async fn decide(
        &self,
        asking: &mut PendingReserve<'_>,
        demand: &Demand,
        patience: &mut WaitBudget,
    ) -> Result<Result<Grant, Denied>, StoreFailure> {
        let mut demand = demand.clone();
        for last in (0..TRIES).map(|nth| nth + 1 == TRIES) {
            let loss = *self.store.losses().borrow();
            let (has_spoken, was_untold) = self.holds.heard(&demand.license);
            let windows = self.windows();
            let question = ReserveArgs {
                demand: &demand,
                group: asking.group.clone(),
                hold: asking.hold,
                asked: asking.asked.is_some(),
            };
            let call = self.scripts.reserve(&self.speaker, &question, &windows, has_spoken);
            asking.asked.get_or_insert_with(UnixMs::now);
            let numbers: Vec<i64> = self.store.call_within(call, patience).await?;
            let (now, answer) = ScriptReply::read(&numbers).ok_or(StoreFailure::Refused)?;
            if !question.asked && !matches!(answer, ScriptReply::Granted { .. }) {
                // Asked once and answered: nothing is on its way or open. What was asked before may have been
                // granted or still come, whatever this answer says; given up, it is cancelled.
                asking.asked = None;
            }
            match answer {
                ScriptReply::Granted { .. } => {
                    return Ok(self.granted(asking, &demand, now, answer, (&windows, loss)));
                }
                // Asked again with the store's time.
                ScriptReply::Clock(_) => self.correct_clock(now),
                ScriptReply::Lost => {
                    self.lost();
                    return Err(StoreFailure::Away);
                }
                ScriptReply::Busy | ScriptReply::Tokens { .. } | ScriptReply::Messages(_)
                    if !last
                        && (was_untold || self.holds.is_untold(&demand.license))
                        && self.await_resync(&demand).await =>
                {
                    // It is one request, and was counted.
                    demand.pace = demand.pace.map(|pace| RateRequest { rate: None, ..pace });
                }
                denied => {
                    if ScriptReply::has_presumed(&numbers) {
                        let _ = self.said.send(SyncMessage::Presumed { license: demand.license });
                    }
                    let denied = refusal(denied, &demand, now, &windows);
                    if let Some(seen) = LastStoreState::refused(&demand, now, &denied) {
                        self.holds.with(&demand.license, |local| local.seen = Some(seen));
                    }
                    return Ok(Err(denied));
                }
            }
        }
        Err(StoreFailure::Refused)
    }

    /// Takes in a grant of the store, which was asked after this loss.
    fn granted(
        &self,
        asking: &mut PendingReserve<'_>,
        demand: &Demand,
        now: UnixMs,
        answer: ScriptReply,
        (windows, loss): (&Windows, u64),
    ) -> Result<Grant, Denied> {
        let ScriptReply::Granted { output, messages, tokens, role, .. } = answer else {
            return Err(Denied::StoreDown);
        };
        let seen = LastStoreState::new(demand, now, messages, tokens);
        let is_same = loss == *self.store.losses().borrow();
        self.holds.with(&demand.license, |local| {
            local.seen = Some(seen);
            // The store has a place for what this gateway settles, and it must not be missing later.
            local.spoken |= is_same;
        });
        let balance = Balance {
            messages: spent(demand.messages, messages, windows),
            tokens: spent(demand.tokens, tokens, windows),
        };
        let granted = Demand { now, output, ..demand.clone() };
        self.book(asking, &granted, role, balance)
    }

    /// Writes a grant of the store into this gateway's own book.
    fn book(
        &self,
        asking: &mut PendingReserve<'_>,
        granted: &Demand,
        role: MessageRole,
        balance: Balance,
    ) -> Result<Grant, Denied> {
        let unlimited = Demand {
            messages: None,
            tokens: None,
            message_id: None,
            conversation: None,
            ..granted.clone()
        };
        let pays = matches!(role, MessageRole::Alone | MessageRole::Owns);
        let booked = match pays {
            true => self.local.book.reserve(&unlimited, &self.local.journal)?,
            false => self.local.book.reserve_covered(&unlimited, &self.local.journal)?,
        };
        let hold = asking.granted(OpenReservation {
            booked: booked.hold,
            message: None,
            input: granted.input,
            tokens: granted.input.saturating_add(granted.output.unwrap_or(0)),
            taken: granted.now,
            group: asking
                .group
                .clone()
                .filter(|_| matches!(role, MessageRole::Owns | MessageRole::Shares)),
            pays,
            leased: None,
            told: Instant::now(),
        });
        Ok(Grant { hold, output: granted.output, input: granted.input, balance })
    }

    /// Waits until the store has been told what was settled here of a licence; whether it was.
    async fn await_resync(&self, demand: &Demand) -> bool {
        let heard = async {
            loop {
                let told = self.told.notified();
                if !self.holds.is_untold(&demand.license) {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.is_ok()
    }

    /// Without the store; `None` where that grants nothing.
    fn lease(&self, demand: &Demand) -> Option<Result<Grant, Denied>> {
        if self.on_down == OnStoreDown::Closed {
            return None;
        }
        let now = self.now();
        let demand = Demand { now, ..demand.clone() };
        let absence = *self.store.losses().borrow();
        let leased = self.holds.with(&demand.license, |local| {
            let seen = local.seen?;
            let leased =
                OutageAllowance::spend(&mut local.lease, &seen, &demand, absence, Instant::now())?;
            local.leased = true;
            Some(leased)
        })?;
        let (booked, message) = match self.book_leased(&demand, leased) {
            Ok(booked) => booked,
            Err(denied) => {
                self.give_back(&demand.license, leased, false, 0);
                return Some(Err(denied));
            }
        };
        let mut asking = PendingReserve::begin(self, &demand);
        let group = asking.group.take();
        let hold = asking.granted(OpenReservation {
            booked,
            message,
            input: demand.input,
            tokens: leased.tokens,
            taken: now,
            pays: group.is_none(),
            group,
            leased: Some(leased),
            told: Instant::now(),
        });
        // What is left is known again when the store is back.
        let balance = Balance::default();
        Some(Ok(Grant { hold, output: leased.output, input: demand.input, balance }))
    }

    /// The last decision about a licence, where that was that its plan is used up: it holds until the
    /// window ends, whether the store can be asked or not.
    fn refused_before(&self, demand: &Demand) -> Option<Denied> {
        let seen = self.holds.with(&demand.license, |local| local.seen)?;
        seen.refusal(demand, self.now())
    }

    fn give_back(
        &self,
        license: &LicenseId,
        leased: outage_allowance::AllowanceUse,
        message: bool,
        tokens: u64,
    ) {
        self.holds.with(license, |local| {
            if let Some(lease) = &mut local.lease {
                lease.settle(leased, message, tokens);
                local.leased = true;
            }
        });
    }
}

/// A request that the store is asked about. Given up, it is cancelled there.
struct PendingReserve<'a> {
    shared: &'a DistributedLedger,
    license: LicenseId,
    group: Option<OpenMessage>,
    hold: u64,
    /// When the store was first asked, as long as its answer is out.
    asked: Option<UnixMs>,
    is_open: bool,
}

impl<'a> PendingReserve<'a> {
    fn begin(shared: &'a DistributedLedger, demand: &Demand) -> Self {
        let license = demand.license;
        let group = demand.message_id.as_deref().map(|id| shared.scripts.group(&license, id));
        let hold = shared.holds.begin(&license);
        Self { shared, license, group, hold, asked: None, is_open: true }
    }

    fn granted(&mut self, open: OpenReservation) -> u64 {
        self.is_open = false;
        self.shared.holds.open(self.hold, open);
        self.hold
    }
}

impl Drop for PendingReserve<'_> {
    /// The store may have granted it, or may do so any moment: it ends when the store has cancelled it.
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        match self.asked {
            None => self.shared.holds.end(self.hold),
            Some(taken) => {
                let (license, hold, group) = (self.license, self.hold, self.group.take());
                let given_up = CancelArgs { license, hold, group, taken };
                let _ = self.shared.said.send(SyncMessage::GivenUp(given_up));
            }
        }
    }
}

fn spent(limit: Option<Limit>, count: LimitCount, windows: &Windows) -> LimitUsage {
    LimitUsage {
        used: count.used,
        limit: limit.map(|_| count.limit),
        left: limit.map(|_| count.left()),
        resets_at: limit.map(|limit| windows.of(limit.per).end),
    }
}

fn refusal(answer: ScriptReply, demand: &Demand, now: UnixMs, windows: &Windows) -> Denied {
    let with = |limit: Limit, count: LimitCount| Limit { count: count.limit, ..limit };
    let pace = demand.pace.as_ref();
    match answer {
        ScriptReply::Places => {
            let limit = pace.and_then(|pace| pace.concurrency).unwrap_or_default();
            Denied::TooFast(RateRefused::Concurrency { limit })
        }
        ScriptReply::Rate => match pace.and_then(|pace| pace.rate) {
            Some(limit) => {
                let retry_after = now.seconds_until(windows.of(limit.per).end);
                Denied::TooFast(RateRefused::Rate { limit, retry_after })
            }
            None => Denied::StoreDown,
        },
        ScriptReply::Messages(count) => match demand.messages {
            Some(limit) => Denied::Messages {
                limit: with(limit, count),
                used: count.used,
                resets_at: windows.of(limit.per).end,
            },
            None => Denied::StoreDown,
        },
        ScriptReply::Tokens { count, left, needed } => match demand.tokens {
            Some(limit) => Denied::Tokens {
                limit: with(limit, count),
                used: count.used,
                left,
                needed,
                resets_at: windows.of(limit.per).end,
            },
            None => Denied::StoreDown,
        },
        ScriptReply::Busy => Denied::Busy,
        ScriptReply::Conversation { limit, resets_at } => limit.refused(demand, resets_at),
        ScriptReply::Granted { .. } | ScriptReply::Clock(_) | ScriptReply::Lost => {
            Denied::StoreDown
        }
    }
}

#[async_trait]
impl Ledger for DistributedLedger {
    /// This gateway alone is held to the pace here; [`Ledger::reserve`] counts all of them.
    async fn enter(&self, pace: &RateRequest, now: UnixMs) -> Result<(), RateRefused> {
        self.local.enter(pace, now).await
    }

    fn leave(&self, license: &LicenseId) {
        self.local.leave(license);
    }

    async fn reserve(&self, demand: &Demand) -> Result<Grant, Denied> {
        let mut asking = PendingReserve::begin(self, demand);
        let mut patience = WaitBudget::of(WITH_LEASE);
        let mut failed = StoreFailure::Away;
        if self.is_up() {
            match self.decide(&mut asking, demand, &mut patience).await {
                Ok(decided) => return decided,
                Err(problem) => failed = problem,
            }
        }
        if let Some(leased) = self.lease(demand) {
            return leased;
        }
        let mut patience = WaitBudget::of(WITHOUT_LEASE - WITH_LEASE);
        while failed == StoreFailure::Away && patience.wait(self.is_back()).await.is_some() {
            match self.decide(&mut asking, demand, &mut patience).await {
                Ok(decided) => return decided,
                Err(problem) => failed = problem,
            }
            patience.wait(tokio::time::sleep(AGAIN)).await;
        }
        Err(self.refused_before(demand).unwrap_or(Denied::StoreDown))
    }

    fn settle(&self, hold: u64, charge: Charge) {
        let (message, tokens) = (charge.message, charge.tokens);
        let about = charge.about.clone().unwrap_or_default();
        let charged = self.holds.settle(hold, about, |open| {
            // The message of a group is paid by the request that owns it.
            self.local.settle(open.booked, Charge { message: message && open.pays, ..charge });
            match (message, open.pays) {
                (true, true) => Remaining::Paid,
                (true, false) if open.message.is_some() => Remaining::CostsUnheard,
                (true, false) => Remaining::Costs,
                (false, _) => Remaining::Free,
            }
        });
        let Some((license, open)) = charged else { return };
        if let Some(leased) = open.leased {
            self.give_back(&license, leased, message, tokens);
        }
        let _ = self.said.send(SyncMessage::Settled { license });
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
