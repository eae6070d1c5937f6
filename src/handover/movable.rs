//! A ledger that can go to another process while requests are open.

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
    Balance, Charge, Demand, Denied, Grant, Ledger, LicenseId, Limit, Pace, Record, StoreDown,
    TooFast, UnixMs,
};

use super::{
    afar::{Afar, Moved},
    wire::{Answer, Deed, Question},
};
use crate::{
    ledger::{Embedded, entry_of},
    telemetry::today::Today,
};

/// Between two looks whether the last call has ended.
const LOOK: Duration = Duration::from_micros(200);
/// How long a call waits for a ledger that is on its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the ledger is asked: here, or in another process.
pub struct Movable {
    here: Arc<dyn Ledger>,
    store: Arc<Embedded>,
    /// Calls under way here. With `moved` it is a gate: a call first counts itself, then looks whether
    /// the ledger has gone; whoever moves it first says so, then waits until none is counted.
    calls: Calls,
    moved: AtomicBool,
    afar: ArcSwapOption<Afar>,
}

/// Counted by each thread in a place of its own, so that threads do not wait for each other's cache lines.
#[derive(Default)]
struct Calls([Place; PLACES]);

const PLACES: usize = 8;

#[repr(align(128))]
#[derive(Default)]
struct Place(AtomicU64);

impl Calls {
    fn begin(&self) -> Call<'_> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static PLACE: usize = NEXT.fetch_add(1, SeqCst) % PLACES;
        }
        let place = &self.0[PLACE.with(|place| *place)];
        place.0.fetch_add(1, SeqCst);
        Call(place)
    }

    fn are_over(&self) -> bool {
        self.0.iter().all(|place| place.0.load(SeqCst) == 0)
    }
}

/// A call under way here.
pub struct Call<'a>(&'a Place);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

impl Movable {
    pub fn new(here: Arc<dyn Ledger>, store: Arc<Embedded>) -> Arc<Self> {
        Arc::new(Self {
            here,
            store,
            calls: Calls::default(),
            moved: AtomicBool::new(false),
            afar: ArcSwapOption::empty(),
        })
    }

    /// Keeps the ledger here while it lives; `None` when it is not here.
    pub fn call(&self) -> Option<Call<'_>> {
        let call = self.calls.begin();
        (!self.moved.load(SeqCst)).then_some(call)
    }

    /// Sends all further calls to `afar`, and waits until none is under way here; false when some took
    /// too long, and the ledger is still here.
    pub fn move_to(&self, afar: Arc<Afar>, within: Duration) -> bool {
        self.afar.store(Some(afar.clone()));
        self.moved.store(true, SeqCst);
        let deadline = Instant::now() + within;
        while !self.calls.are_over() {
            if Instant::now() >= deadline {
                self.stay(&afar);
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// The ledger was not given away after all: what was to be said there is done here.
    pub fn stay(&self, afar: &Afar) {
        let deeds = afar.close(|| self.moved.store(false, SeqCst));
        deeds.into_iter().for_each(|deed| self.did(deed));
        afar.moved();
    }

    /// The ledger was read again here, places included, and does what the other process may not have
    /// heard.
    pub fn move_back(&self, afar: &Afar) {
        // In one step: who is told that it moved finds it here.
        let deeds = afar.close(|| self.moved.store(false, SeqCst));
        deeds.into_iter().for_each(|deed| self.redo(deed));
        afar.moved();
    }

    /// Calls have no effect any more: the process ends. False when some are under way still.
    pub fn retire(&self) -> bool {
        self.move_to(Arc::new(Afar::default()), Duration::from_secs(1))
    }

    fn redo(&self, deed: Deed) {
        match deed {
            Deed::Settle(hold, charge) => self.here.settle(hold, charge),
            Deed::Record { entry, .. } => self.store.record_entry(entry),
            // Places are counted where the ledger is read again; a record is put on the shelf there.
            Deed::Leave(_) | Deed::License(..) => {}
        }
    }

    /// What another process did with a request of its own.
    pub fn did(&self, deed: Deed) {
        if let Some(_call) = self.call() {
            match deed {
                Deed::Leave(license) => self.here.leave(&license),
                deed => self.redo(deed),
            }
        } else {
            self.tell(deed);
        }
    }

    fn tell(&self, deed: Deed) {
        let told = self.afar.load_full().map(|afar| afar.tell(deed.clone()));
        // It came back in the same moment.
        if told == Some(Err(Moved)) {
            self.did(deed);
        }
    }

    async fn ask(&self, question: &Question) -> Option<Answer> {
        let afar = self.afar.load_full()?;
        tokio::time::timeout(PATIENCE, afar.ask(question.clone())).await.ok()?
    }
}

#[async_trait]
impl Ledger for Movable {
    async fn enter(&self, pace: &Pace, now: UnixMs) -> Result<(), TooFast> {
        loop {
            if let Some(_call) = self.call() {
                return self.here.enter(pace, now).await;
            }
            match self.ask(&Question::Enter(*pace, now)).await {
                Some(Answer::Entered(answer)) => return answer,
                Some(_) => return Err(TooFast::StoreDown),
                None if self.moved.load(SeqCst) => return Err(TooFast::StoreDown),
                None => {}
            }
        }
    }

    fn leave(&self, license: &LicenseId) {
        match self.call() {
            Some(_call) => self.here.leave(license),
            None => self.tell(Deed::Leave(*license)),
        }
    }

    async fn reserve(&self, demand: &Demand) -> Result<Grant, Denied> {
        loop {
            if let Some(_call) = self.call() {
                return self.here.reserve(demand).await;
            }
            match self.ask(&Question::Reserve(Box::new(demand.clone()))).await {
                Some(Answer::Reserved(answer)) => return *answer,
                Some(_) => return Err(Denied::StoreDown),
                None if self.moved.load(SeqCst) => return Err(Denied::StoreDown),
                None => {}
            }
        }
    }

    fn settle(&self, hold: u64, charge: Charge) {
        match self.call() {
            Some(_call) => self.here.settle(hold, charge),
            None => self.tell(Deed::Settle(hold, charge)),
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
            match self.ask(&Question::Balance(*license, messages, tokens, now)).await {
                Some(Answer::Balanced(answer)) => return answer,
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
        let mut used = Today::default();
        used.count(&record, 0);
        self.tell(Deed::Record { entry, provider, cost, time, used });
    }
}
