//! Requests of the old process that the successor accounts for.

use std::{
    collections::HashMap,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{Charge, Ledger, LicenseId};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use super::{
    STORE_TIME,
    protocol::{self, FromPredecessor, FromSuccessor, LedgerCommand, LedgerQuery, LedgerReply},
    switchable_ledger::SwitchableLedger,
};
use crate::{
    budget::SpendTracker, ledger::DistributedLedger, licenses::LicenseValidator,
    telemetry::Telemetry,
};

/// What the predecessor's requests have open here.
#[derive(Debug, Default)]
pub struct AdoptedState {
    /// Hold and the estimate of the input.
    pub open: HashMap<u64, u64>,
    pub places: HashMap<LicenseId, u32>,
}

/// The connection is read in any case: the predecessor writes with its requests waiting, so messages to it
/// are written by a thread of its own.
pub struct AdoptedRequests {
    pub stream: Arc<UnixStream>,
    pub replies: Sender<FromSuccessor>,
    pub shared: Option<Arc<DistributedLedger>>,
    pub began: Instant,
    pub ledger: Arc<SwitchableLedger>,
    pub licenses: Arc<LicenseValidator>,
    pub spending: Arc<SpendTracker>,
    pub telemetry: Arc<Telemetry>,
    pub kept: Mutex<AdoptedState>,
    pub is_over: Arc<AtomicBool>,
}

impl AdoptedRequests {
    /// Until the predecessor has ended. `messages` are the messages to it, written one at a time.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn begin(
        self,
        messages: Receiver<FromSuccessor>,
        writing: Arc<Mutex<()>>,
    ) -> std::io::Result<()> {
        let stream = self.stream.clone();
        std::thread::Builder::new()
            .name("predecessor".into())
            .spawn(move || write_all(&stream, &messages, &writing))?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let adopted = Arc::new(self);
        std::thread::Builder::new().name("predecessor".into()).spawn(move || {
            while let Ok(message) = protocol::receive(&adopted.stream) {
                adopted.handle(message, &runtime);
            }
            // A query that is no longer awaited must not block what follows.
            runtime.shutdown_timeout(Duration::from_secs(1));
            adopted.end();
        })?;
        Ok(())
    }

    fn handle(self: &Arc<Self>, message: FromPredecessor, runtime: &Runtime) {
        match message {
            FromPredecessor::Did { number, what } => {
                self.apply(what);
                self.send(FromSuccessor::Has(number));
            }
            FromPredecessor::Asked { call, what } => {
                let adopted = self.clone();
                runtime.spawn(async move {
                    let answer = adopted.answer(what).await;
                    adopted.send(FromSuccessor::Answer { call, answer });
                });
            }
            // Belongs to an earlier phase.
            FromPredecessor::Welcome | FromPredecessor::Refused(_) | FromPredecessor::State(_) => {}
        }
    }

    fn send(&self, message: FromSuccessor) {
        let _ = self.replies.send(message);
    }

    fn apply(&self, what: LedgerCommand) {
        match &what {
            LedgerCommand::Leave(license) => {
                if let Some(places) = self.kept.lock().places.get_mut(license) {
                    *places = places.saturating_sub(1);
                }
            }
            LedgerCommand::Settle(hold, _) => drop(self.kept.lock().open.remove(hold)),
            LedgerCommand::Record { provider, cost, time, used, .. } => {
                if *cost > 0 {
                    self.spending.add(provider, *cost, *time);
                }
                self.telemetry.live.used(used);
            }
            LedgerCommand::License(..) => {}
        }
        match what {
            LedgerCommand::License(id, record) => self.licenses.take_in(id, record),
            what => self.ledger.did(what),
        }
    }

    async fn answer(&self, what: LedgerQuery) -> LedgerReply {
        // A gateway that has just begun decides nothing until it has put back what it knows.
        if let Some(shared) = &self.shared {
            shared.await_resync_until(self.began + STORE_TIME).await;
        }
        match what {
            LedgerQuery::Enter(pace, now) => {
                let answer = self.ledger.enter(&pace, now).await;
                if answer.is_ok() {
                    *self.kept.lock().places.entry(pace.license).or_default() += 1;
                }
                LedgerReply::Entered(answer)
            }
            LedgerQuery::Reserve(demand) => {
                let answer = self.ledger.reserve(&demand).await;
                if let Ok(grant) = &answer {
                    self.kept.lock().open.insert(grant.hold, grant.input);
                }
                LedgerReply::Reserved(Box::new(answer))
            }
            LedgerQuery::Balance(license, messages, tokens, now) => {
                LedgerReply::Balanced(self.ledger.balance(&license, messages, tokens, now).await)
            }
        }
    }

    /// The predecessor has ended. What it had open is charged as after a crash, which it was then.
    fn end(&self) {
        let kept = std::mem::take(&mut *self.kept.lock());
        let open = kept.open.len();
        for (hold, input) in kept.open {
            self.ledger.settle(hold, Charge::vanished(input));
        }
        for (license, places) in kept.places {
            (0..places).for_each(|_| self.ledger.leave(&license));
        }
        self.is_over.store(true, Relaxed);
        match open {
            0 => log::info!("The predecessor has ended."),
            _ => log::warn!(
                "The predecessor ended with {open} requests open: they are charged one message and \
                 their input."
            ),
        }
    }
}

/// Of what was done, the last number is enough.
fn write_all(stream: &UnixStream, messages: &Receiver<FromSuccessor>, writing: &Mutex<()>) {
    while let Ok(first) = messages.recv() {
        let mut has = None;
        for message in std::iter::once(first).chain(messages.try_iter()) {
            if let FromSuccessor::Has(number) = message {
                has = Some(number);
                continue;
            }
            let _writing = writing.lock();
            let _ = protocol::send(stream, &message);
        }
        if let Some(number) = has {
            let _writing = writing.lock();
            let _ = protocol::send(stream, &FromSuccessor::Has(number));
        }
    }
}
