//! The ledger of several gateways: they decide together, on the store they share.
//!
//! ```text
//! reserve ──► store (one script: rate, places, messages, tokens) ──► own book and journal ──► granted
//! settle  ──► own book and journal ──► queue ──► store: "this is what I have settled so far"
//! ```
//! Each gateway counts what it settles itself, in the ledger of one machine ([`Embedded`]: journal,
//! SQLite), and tells the store the sum, not the step. So telling it twice, late or out of order
//! changes nothing, and whatever the store loses (a restart, a failover, FLUSHALL) is whole again
//! when each gateway has spoken. What is open is on the store by name; a request that is not renewed
//! for a minute is presumed charged until its gateway speaks again.
//!
//! What holds, beside what [`super`] promises:
//! - While the store answers, N requests at once at any number of gateways against a limit of L
//!   messages: exactly min(N, L) are granted.
//! - While it does not, a licence spends a lease at most ([`lease`]), or nothing (`closed`). 402 and
//!   403 are never said without a decision.
//! - Until the gateways that live have put back what the store may have lost, they grant nothing but
//!   leases (for a second and a half at most, where one of them can't).
//! - What operators give through a gateway is kept and told as its own sums are, so nothing is lost
//!   with the store, and nothing counts twice.

mod adjust;
mod answer;
mod holds;
mod lease;
mod moving;
mod peers;
mod scripts;
mod speak;

pub use self::adjust::{Done, NotDone};

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
    Balance, Charge, Demand, Denied, Grant, Ledger, LicenseId, Limit, Pace, Record, Spent,
    StoreDown, TooFast, UnixMs,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use self::{
    answer::{Answer, Count},
    holds::{Holds, Open},
    lease::{Lease, Seen},
    peers::Peers,
    scripts::{Scripts, Speaker},
    speak::Said,
};
pub use self::{holds::Held, lease::Kept};
use super::{Embedded, windows::Windows};
use crate::{config::settings::OnStoreDown, store::Store};

/// How long a request that only just does not fit waits for what this gateway has still to tell.
const PATIENCE: Duration = Duration::from_millis(30);
/// Script calls for one reservation: the clock may be corrected, and what was settled told.
const TRIES: usize = 3;

pub struct Shared {
    local: Arc<Embedded>,
    store: Arc<Store>,
    speaker: Speaker,
    on_down: OnStoreDown,
    scripts: Scripts,
    holds: Holds,
    /// The store's clock minus ours, in milliseconds.
    clock: AtomicI64,
    /// The loss of the store ([`Store::losses`]) after which everything was put back.
    whole: AtomicU64,
    said: mpsc::UnboundedSender<Said>,
    /// Something settled has been told.
    told: Notify,
    peers: Mutex<Peers>,
    /// Another process speaks for this gateway.
    away: AtomicBool,
}

impl Shared {
    /// # Errors
    /// The database of this gateway fails.
    pub fn open(
        local: Arc<Embedded>,
        store: Arc<Store>,
        on_down: OnStoreDown,
    ) -> rusqlite::Result<Arc<Self>> {
        let (gateway, boot) = local.identity()?;
        let leases = local.db.lock().leases()?;
        let (said, hearing) = mpsc::unbounded_channel();
        let shared = Arc::new(Self {
            local,
            store,
            speaker: Speaker { gateway, boot: AtomicU64::new(boot) },
            on_down,
            scripts: Scripts::new(),
            holds: Holds::new(),
            clock: AtomicI64::new(0),
            whole: AtomicU64::new(0),
            said,
            told: Notify::new(),
            peers: Mutex::default(),
            away: AtomicBool::new(false),
        });
        for (license, kept) in leases {
            shared.holds.with(&license, |local| local.lease = Some(Lease::restored(kept)));
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

    /// Asks the store. `Err` when it does not decide.
    async fn decide(&self, demand: &Demand) -> Result<Result<Grant, Denied>, StoreDown> {
        let mut demand = demand.clone();
        for last in (0..TRIES).map(|nth| nth + 1 == TRIES) {
            let asking = Asking::begin(self, demand.license);
            let windows = self.windows();
            let call = self.scripts.reserve(
                &self.speaker,
                asking.hold,
                &demand,
                &windows,
                asking.has_spoken,
            );
            let numbers: Vec<i64> = self.store.call(call).await.map_err(|_| StoreDown)?;
            let (now, answer) = Answer::read(&numbers).ok_or(StoreDown)?;
            match answer {
                Answer::Granted { output, messages, tokens, covered, .. } => {
                    let seen = Seen::new(&demand, now, messages, tokens);
                    self.holds.with(&demand.license, |local| local.seen = Some(seen));
                    let balance = Balance {
                        messages: spent(demand.messages, messages, &windows),
                        tokens: spent(demand.tokens, tokens, &windows),
                    };
                    let granted = Demand { now, output, message_id: None, ..demand.clone() };
                    return Ok(self.book(asking, &demand, &granted, covered, balance));
                }
                // Asked again with the store's time.
                Answer::Clock(_) => {
                    self.correct_clock(now);
                    asking.refused();
                }
                Answer::Lost => {
                    asking.refused();
                    self.lost();
                    return Err(StoreDown);
                }
                Answer::Busy | Answer::Tokens { .. }
                    if !last && self.has_news(&asking) && self.heard_out(&demand).await =>
                {
                    asking.refused();
                    // It is one request, and was counted.
                    demand.pace = demand.pace.map(|pace| Pace { rate: None, ..pace });
                }
                denied => {
                    asking.refused();
                    return Ok(Err(refusal(denied, &demand, now, &windows)));
                }
            }
        }
        Err(StoreDown)
    }

    /// Writes a grant of the store into this gateway's own book.
    fn book(
        &self,
        asking: Asking<'_>,
        demand: &Demand,
        granted: &Demand,
        covered: bool,
        balance: Balance,
    ) -> Result<Grant, Denied> {
        let unlimited = Demand { messages: None, tokens: None, ..granted.clone() };
        let booked = self.local.book.reserve(&unlimited, &self.local.journal)?;
        let open = Open {
            booked: booked.hold,
            input: demand.input,
            tokens: demand.input.saturating_add(granted.output.unwrap_or(0)),
            taken: granted.now,
            message_id: demand.message_id.clone(),
            covered,
            leased: None,
            ending: false,
            told: Instant::now(),
        };
        let hold = asking.granted(open);
        Ok(Grant { hold, output: granted.output, input: demand.input, balance })
    }

    /// Whether the store did not know everything that was settled here when it decided.
    fn has_news(&self, asking: &Asking<'_>) -> bool {
        asking.was_untold || self.holds.is_untold(&asking.license)
    }

    /// Waits until the store has been told what was settled here of a licence; whether it was.
    async fn heard_out(&self, demand: &Demand) -> bool {
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

    /// Without the store.
    fn lease(&self, demand: &Demand) -> Result<Grant, Denied> {
        if self.on_down == OnStoreDown::Closed {
            return Err(Denied::StoreDown);
        }
        let now = self.now();
        let demand = Demand { now, ..demand.clone() };
        let absence = *self.store.losses().borrow();
        let leased = self.holds.with(&demand.license, |local| {
            let seen = local.seen?;
            local.leased = true;
            Lease::spend(&mut local.lease, &seen, &demand, absence, Instant::now())
        });
        let leased = leased.ok_or(Denied::StoreDown)?;
        let unlimited =
            Demand { messages: None, tokens: None, output: leased.output, ..demand.clone() };
        let booked = self.local.book.reserve(&unlimited, &self.local.journal);
        let booked = booked.inspect_err(|_| {
            self.give_back(&demand.license, leased, false, 0);
        })?;
        let asking = Asking::begin(self, demand.license);
        let hold = asking.granted(Open {
            booked: booked.hold,
            input: demand.input,
            tokens: leased.tokens,
            taken: now,
            message_id: None,
            covered: false,
            leased: Some(leased),
            ending: false,
            told: Instant::now(),
        });
        // What is left is known again when the store is back.
        let balance = Balance::default();
        Ok(Grant { hold, output: leased.output, input: demand.input, balance })
    }

    fn give_back(&self, license: &LicenseId, leased: lease::Leased, message: bool, tokens: u64) {
        self.holds.with(license, |local| {
            if let Some(lease) = &mut local.lease {
                lease.settle(leased, message, tokens);
                local.leased = true;
            }
        });
    }

    /// Charges in this gateway's own book, and has the store told.
    fn charge(&self, license: LicenseId, hold: u64, open: &Open, charge: Charge) {
        let (message, tokens) = (charge.message, charge.tokens);
        if !self.holds.settle(hold, || self.local.settle(open.booked, charge)) {
            return;
        }
        if let Some(leased) = open.leased {
            self.give_back(&license, leased, message, tokens);
        }
        let _ = self.said.send(Said::Settled { license });
    }
}

/// A request that the store is asked about. Given up, the store is told so later.
struct Asking<'a> {
    shared: &'a Shared,
    license: LicenseId,
    hold: u64,
    has_spoken: bool,
    /// The store had still to hear of something settled.
    was_untold: bool,
    is_open: bool,
}

impl<'a> Asking<'a> {
    fn begin(shared: &'a Shared, license: LicenseId) -> Self {
        let (hold, has_spoken, was_untold) = shared.holds.begin(&license);
        Self { shared, license, hold, has_spoken, was_untold, is_open: true }
    }

    fn granted(mut self, open: Open) -> u64 {
        self.is_open = false;
        self.shared.holds.open(self.hold, open);
        self.hold
    }

    fn refused(mut self) {
        self.is_open = false;
        self.shared.holds.end(self.hold);
    }
}

impl Drop for Asking<'_> {
    /// The store may have granted it, or may do so any moment.
    fn drop(&mut self) {
        if self.is_open {
            self.shared.holds.end(self.hold);
            let _ = self.shared.said.send(Said::Doubted { license: self.license });
        }
    }
}

fn spent(limit: Option<Limit>, count: Count, windows: &Windows) -> Spent {
    Spent {
        used: count.used,
        limit: limit.map(|_| count.limit),
        left: limit.map(|_| count.left()),
        resets_at: limit.map(|limit| windows.of(limit.per).end),
    }
}

fn refusal(answer: Answer, demand: &Demand, now: UnixMs, windows: &Windows) -> Denied {
    let with = |limit: Limit, count: Count| Limit { count: count.limit, ..limit };
    let pace = demand.pace.as_ref();
    match answer {
        Answer::Places => {
            let limit = pace.and_then(|pace| pace.concurrency).unwrap_or_default();
            Denied::TooFast(TooFast::Concurrency { limit })
        }
        Answer::Rate => match pace.and_then(|pace| pace.rate) {
            Some(limit) => {
                let retry_after = now.seconds_until(windows.of(limit.per).end);
                Denied::TooFast(TooFast::Rate { limit, retry_after })
            }
            None => Denied::StoreDown,
        },
        Answer::Messages(count) => match demand.messages {
            Some(limit) => Denied::Messages {
                limit: with(limit, count),
                used: count.used,
                resets_at: windows.of(limit.per).end,
            },
            None => Denied::StoreDown,
        },
        Answer::Tokens { count, left, needed } => match demand.tokens {
            Some(limit) => Denied::Tokens {
                limit: with(limit, count),
                used: count.used,
                left,
                needed,
                resets_at: windows.of(limit.per).end,
            },
            None => Denied::StoreDown,
        },
        Answer::Busy => Denied::Busy,
        Answer::Granted { .. } | Answer::Clock(_) | Answer::Lost => Denied::StoreDown,
    }
}

#[async_trait]
impl Ledger for Shared {
    /// This gateway alone is held to the pace here; [`Ledger::reserve`] counts all of them.
    async fn enter(&self, pace: &Pace, now: UnixMs) -> Result<(), TooFast> {
        self.local.enter(pace, now).await
    }

    fn leave(&self, license: &LicenseId) {
        self.local.leave(license);
    }

    async fn reserve(&self, demand: &Demand) -> Result<Grant, Denied> {
        if self.is_up()
            && let Ok(decided) = self.decide(demand).await
        {
            return decided;
        }
        self.lease(demand)
    }

    fn settle(&self, hold: u64, charge: Charge) {
        let Some((license, open)) = self.holds.begin_end(hold) else { return };
        match open.message_id.clone() {
            // Which request of an id is charged the message is decided on the store.
            Some(id) => {
                let _ = self.said.send(Said::Shared { license, hold, open, id, charge });
            }
            None => self.charge(license, hold, &open, charge),
        }
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
