//! A ledger that can be switched to another implementation at run time, with a count of the calls in flight.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use gatekeeper_filters::kernel::{
    Balance, Charge, Demand, Denied, Grant, Ledger, LicenseId, Limit, RateRefused, RateRequest,
    Record, StoreDown, UnixMs,
};

use super::{
    protocol::{LedgerCommand, LedgerQuery, LedgerReply},
    remote_ledger::{LedgerMoved, RemoteLedger},
};
use crate::{
    ledger::{EmbeddedLedger, entry_of},
    telemetry::daily_totals::DailyTotals,
};

/// Between two looks whether the last call has ended.
const LOOK: Duration = Duration::from_micros(200);
/// How long a call waits for a ledger that is on its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the ledger is asked: here, or in another process.
pub struct SwitchableLedger {
    here: Arc<dyn Ledger>,
    store: Arc<EmbeddedLedger>,
    /// Calls under way here. Together with `moved` it works as a gate: a call first counts itself, then
    /// checks whether the ledger has moved; a move first sets `moved`, then waits until no call is counted.
    calls: InFlightCalls,
    moved: AtomicBool,
    remote: ArcSwapOption<RemoteLedger>,
}

/// Counted by each thread in a place of its own, so that threads do not wait for each other's cache lines.
#[derive(Default)]
struct InFlightCalls([LedgerLocation; PLACES]);

const PLACES: usize = 8;

#[repr(align(128))]
#[derive(Default)]
struct LedgerLocation(AtomicU64);

impl InFlightCalls {
    fn begin(&self) -> CallGuard<'_> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static PLACE: usize = NEXT.fetch_add(1, SeqCst) % PLACES;
        }
        let place = &self.0[PLACE.with(|place| *place)];
        place.0.fetch_add(1, SeqCst);
        CallGuard(place)
    }

    fn are_over(&self) -> bool {
        self.0.iter().all(|place| place.0.load(SeqCst) == 0)
    }
}

/// A call under way here.
pub struct CallGuard<'a>(&'a LedgerLocation);

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

impl SwitchableLedger {
    pub fn new(here: Arc<dyn Ledger>, store: Arc<EmbeddedLedger>) -> Arc<Self> {
        Arc::new(Self {
            here,
            store,
            calls: InFlightCalls::default(),
            moved: AtomicBool::new(false),
            remote: ArcSwapOption::empty(),
        })
    }

    /// Keeps the ledger here while it lives; `None` when it is not here.
    pub fn call(&self) -> Option<CallGuard<'_>> {
        let call = self.calls.begin();
        (!self.moved.load(SeqCst)).then_some(call)
    }

    /// Sends all further calls to `remote`, and waits until none is under way here; false when some took
    /// too long, and the ledger is still here.
    pub fn move_to(&self, remote: Arc<RemoteLedger>, within: Duration) -> bool {
        self.remote.store(Some(remote.clone()));
        self.moved.store(true, SeqCst);
        let deadline = Instant::now() + within;
        while !self.calls.are_over() {
            if Instant::now() >= deadline {
                self.stay(&remote);
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// The ledger was not handed over after all: queued commands are executed here.
    pub fn stay(&self, remote: &RemoteLedger) {
        let commands = remote.close(|| self.moved.store(false, SeqCst));
        commands.into_iter().for_each(|command| self.did(command));
        remote.moved();
    }

    /// The ledger was reloaded here, places included; executes the commands that the other process may not
    /// have received.
    pub fn move_back(&self, remote: &RemoteLedger) {
        // Atomically: a caller that learns of the move finds the ledger here.
        let commands = remote.close(|| self.moved.store(false, SeqCst));
        commands.into_iter().for_each(|command| self.redo(command));
        remote.moved();
    }

    /// Calls have no effect any more: the process ends. False when some are under way still.
    pub fn retire(&self) -> bool {
        self.move_to(Arc::new(RemoteLedger::default()), Duration::from_secs(1))
    }

    fn redo(&self, command: LedgerCommand) {
        match command {
            LedgerCommand::Settle(hold, charge) => self.here.settle(hold, charge),
            LedgerCommand::Record { entry, .. } => self.store.record_entry(entry),
            // Places are counted when the ledger is reloaded; cache entries are written by the disk cache.
            LedgerCommand::Leave(_) | LedgerCommand::License(..) => {}
        }
    }

    /// What another process did with a request of its own.
    pub fn did(&self, command: LedgerCommand) {
        if let Some(_call) = self.call() {
            match command {
                LedgerCommand::Leave(license) => self.here.leave(&license),
                command => self.redo(command),
            }
        } else {
            self.send(command);
        }
    }

    fn send(&self, command: LedgerCommand) {
        let sent = self.remote.load_full().map(|remote| remote.send(command.clone()));
        // It moved back at the same time.
        if sent == Some(Err(LedgerMoved)) {
            self.did(command);
        }
    }

    async fn ask(&self, question: &LedgerQuery) -> Option<LedgerReply> {
        let remote = self.remote.load_full()?;
        tokio::time::timeout(PATIENCE, remote.ask(question.clone())).await.ok()?
    }
}

#[async_trait]
impl Ledger for SwitchableLedger {
    async fn enter(&self, pace: &RateRequest, now: UnixMs) -> Result<(), RateRefused> {
        loop {
            if let Some(_call) = self.call() {
                return self.here.enter(pace, now).await;
            }
            match self.ask(&LedgerQuery::Enter(*pace, now)).await {
                Some(LedgerReply::Entered(answer)) => return answer,
                Some(_) => return Err(RateRefused::StoreDown),
                None if self.moved.load(SeqCst) => return Err(RateRefused::StoreDown),
                None => {}
            }
        }
    }

    fn leave(&self, license: &LicenseId) {
        match self.call() {
            Some(_call) => self.here.leave(license),
            None => self.send(LedgerCommand::Leave(*license)),
        }
    }

    async fn reserve(&self, demand: &Demand) -> Result<Grant, Denied> {
        loop {
            if let Some(_call) = self.call() {
                return self.here.reserve(demand).await;
            }
            match self.ask(&LedgerQuery::Reserve(Box::new(demand.clone()))).await {
                Some(LedgerReply::Reserved(answer)) => return *answer,
                Some(_) => return Err(Denied::StoreDown),
                None if self.moved.load(SeqCst) => return Err(Denied::StoreDown),
                None => {}
            }
        }
    }

    fn settle(&self, hold: u64, charge: Charge) {
        match self.call() {
            Some(_call) => self.here.settle(hold, charge),
            None => self.send(LedgerCommand::Settle(hold, charge)),
        }
    }

    async fn balance(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
        now: UnixMs,
    ) -> Result<Balance, StoreDown> {
        loop {
            if let Some(_call) = self.call() {
                return self.here.balance(license, messages, tokens, now).await;
            }
            match self.ask(&LedgerQuery::Balance(*license, messages, tokens, now)).await {
                Some(LedgerReply::Balanced(answer)) => return answer,
                Some(_) => return Err(StoreDown),
                None if self.moved.load(SeqCst) => return Err(StoreDown),
                None => {}
            }
        }
    }

    fn record(&self, record: Record) {
        if let Some(_call) = self.call() {
            return self.here.record(record);
        }
        let (provider, cost, time) = (record.provider.to_string(), record.cost, record.time);
        let entry = entry_of(&record);
        let mut used = DailyTotals::default();
        used.count(&record, 0);
        self.send(LedgerCommand::Record { entry, provider, cost, time, used });
    }
}
