//! The sending side of an upgrade: hands sockets, store and in-memory state to the successor.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::Ordering::SeqCst,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::UnixMs;
use tokio::runtime::Builder;

use super::{
    control_socket::{Successor, UpgradeServer},
    protocol::{self, FromPredecessor, FromSuccessor, LedgerCommand, LedgerState},
    remote_ledger::{OpenCalls, RemoteLedger},
};
use crate::{
    ledger::in_memory_state::InMemoryState, os::systemd, telemetry::daily_totals::DailyTotals,
};

/// How long calls of the ledger may take that are under way.
const CALLS: Duration = Duration::from_secs(5);
/// How long a successor has from the state to its first request.
const READY: Duration = Duration::from_secs(10);
/// One write to the successor. One that takes longer has a successor that hangs.
const WRITE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);

/// How it ended.
enum UpgradeEnd {
    /// The connection is over.
    Lost,
    Failed(String),
}

impl UpgradeServer {
    /// # Errors
    /// Why this process serves on.
    pub(super) fn give_to(self: &Arc<Self>, successor: Successor) -> Result<(), String> {
        let outcome = self.try_give(successor);
        // Otherwise it is under way until the successor has ended.
        if outcome.is_err() {
            self.steps.is_under_way.store(false, SeqCst);
        }
        outcome
    }

    fn try_give(self: &Arc<Self>, successor: Successor) -> Result<(), String> {
        let began = Instant::now();
        let pid = successor.pid.as_raw_nonzero();
        let remote = Arc::new(RemoteLedger::default());
        // Started first: without that thread the ledger could not be taken back from the successor.
        let (serves, served) = mpsc::channel();
        self.watch(remote.clone(), served).map_err(|problem| format!("no thread: {problem}"))?;
        if !self.phase.hand_over() {
            return Err("it does not serve".into());
        }
        log::info!("Handing over to process {pid}.");
        if !self.ledger.move_to(remote.clone(), CALLS) {
            self.phase.resume_serving();
            return Err("requests wait for the store for too long".into());
        }
        let (given, sent) = self.give(&successor.stream, &remote);
        match sent.and_then(|()| self.until_ready(&successor.stream, &remote)) {
            Ok(apps) => {
                self.phase.handed_over(self.place.via(&apps));
                self.ports.close();
                log::info!(
                    "Process {pid} serves, after {} ms. This one ends with its last request.",
                    began.elapsed().as_millis()
                );
                // The thread waits for just this.
                let _ = serves.send((successor, given));
                Ok(())
            }
            Err(why) => {
                successor.end();
                self.take_back(&remote, given);
                if self.phase.resume_serving() {
                    self.reregister();
                }
                Err(why)
            }
        }
    }

    /// Answers a successor that serves, and takes everything back when it has ended.
    fn watch(
        self: &Arc<Self>,
        remote: Arc<RemoteLedger>,
        served: Receiver<(Successor, Option<InMemoryState>)>,
    ) -> io::Result<()> {
        let handover = self.clone();
        let thread = std::thread::Builder::new().name("successor".into());
        let started = thread.spawn(move || {
            // It came to nothing.
            let Ok((successor, given)) = served.recv() else { return };
            let was_asked_to_end = handover.listen_to(&successor.stream, &remote);
            successor.end();
            handover.take_back(&remote, given);
            handover.steps.is_under_way.store(false, SeqCst);
            if !was_asked_to_end {
                handover.resume_serving(successor.pid.as_raw_nonzero().get());
            }
        });
        started.map(drop)
    }

    /// Sends everything; and what was in memory alone, which comes back in any case. `None` where the
    /// store did not go.
    fn give(
        &self,
        stream: &UnixStream,
        remote: &Arc<RemoteLedger>,
    ) -> (Option<InMemoryState>, Result<(), String>) {
        let successor = remote.clone();
        self.licenses.give(Box::new(move |id, record| {
            // If the cache is back by now, it marks the entry to be written to disk.
            let _ = successor.send(LedgerCommand::License(id, record));
        }));
        let held = match &self.shared {
            None => None,
            Some(shared) => {
                let runtime = Builder::new_current_thread().enable_all().build();
                let held = runtime.ok().and_then(|runtime| runtime.block_on(shared.hand_over()));
                if held.is_none() {
                    let why = "what was settled last is not in the ledger yet";
                    return (None, Err(why.into()));
                }
                held
            }
        };
        // Not worth a failure: the page shows an older one.
        let _ = self.store.keep_webhooks(&self.telemetry.webhooks.changed());
        let (volatile, lock) = match self.store.give() {
            Ok(inherited) => (inherited.volatile, Ok(inherited.lock)),
            Err(problem) => (self.store.volatile(), Err(format!("the store: {problem}"))),
        };
        let volatile = InMemoryState { shared: held, ..volatile };
        remote.hold(open_in(&volatile));
        let sent = lock.and_then(|lock| {
            let sent = self.send(stream, &lock, &volatile);
            sent.map_err(|problem| format!("the successor takes nothing: {problem}"))
        });
        (Some(volatile), sent.map(|stream| remote.open(stream)))
    }

    /// Opens the stream on which the successor receives commands.
    fn send(
        &self,
        stream: &UnixStream,
        lock: &OwnedFd,
        volatile: &InMemoryState,
    ) -> io::Result<UnixStream> {
        stream.set_write_timeout(Some(WRITE))?;
        let sockets = self.sockets.iter().map(|socket| socket.address.to_string()).collect();
        let files: Vec<_> = std::iter::once(lock.as_fd())
            .chain(self.sockets.iter().map(|socket| socket.fd()))
            .collect();
        protocol::send_files(stream, &files)?;
        let state = LedgerState { sockets, volatile: volatile.clone() };
        protocol::send(stream, &FromPredecessor::State(Box::new(state)))?;
        stream.try_clone()
    }

    /// Where the successor takes requests, once it serves.
    fn until_ready(&self, stream: &UnixStream, remote: &RemoteLedger) -> Result<String, String> {
        let deadline = Instant::now() + READY;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("the successor did not serve within {} s", READY.as_secs()));
            }
            let _ = stream.set_read_timeout(Some(left));
            match self.next(stream, remote) {
                Ok(Some(FromSuccessor::Ready { apps })) => {
                    let _ = stream.set_read_timeout(None);
                    return Ok(apps);
                }
                Ok(_) => {}
                Err(UpgradeEnd::Failed(why)) => return Err(format!("the successor says: {why}")),
                Err(UpgradeEnd::Lost) if Instant::now() >= deadline => {}
                Err(UpgradeEnd::Lost) => return Err("the successor ended before it served".into()),
            }
        }
    }

    /// Until the successor ends; whether that was requested, so that this process must not serve again.
    fn listen_to(&self, stream: &UnixStream, remote: &RemoteLedger) -> bool {
        let mut leaves = false;
        loop {
            match self.next(stream, remote) {
                Ok(Some(FromSuccessor::Leaving)) => leaves = true,
                Ok(_) | Err(UpgradeEnd::Failed(_)) => {}
                Err(UpgradeEnd::Lost) => {
                    remote.broken();
                    return leaves;
                }
            }
        }
    }

    fn next(
        &self,
        stream: &UnixStream,
        remote: &RemoteLedger,
    ) -> Result<Option<FromSuccessor>, UpgradeEnd> {
        match protocol::receive(stream).map_err(|_| UpgradeEnd::Lost)? {
            FromSuccessor::Has(number) => remote.has(number),
            FromSuccessor::Answer { call, answer } => remote.answer(call, answer),
            FromSuccessor::Failed(why) => return Err(UpgradeEnd::Failed(why)),
            message => return Ok(Some(message)),
        }
        Ok(None)
    }

    /// The successor is dead: everything is this process' again. `given` is what was in memory alone
    /// when the store went, if it did.
    fn take_back(&self, remote: &RemoteLedger, given: Option<InMemoryState>) {
        remote.broken();
        match given {
            // No other process has read it: calls may continue on it without a reload.
            None => self.ledger.stay(remote),
            Some(given) => {
                self.reclaim_store(remote, given);
                self.ledger.move_back(remote);
                self.used_meanwhile();
            }
        }
        self.licenses.take_back();
    }

    fn reclaim_store(&self, remote: &RemoteLedger, given: InMemoryState) {
        let volatile = still_open(given, remote.held());
        while let Err(problem) = self.store.take_back(&volatile) {
            log::error!("The store cannot be reclaimed yet: {problem}.");
            std::thread::sleep(RETRY);
        }
        if let (Some(shared), Some(held)) = (&self.shared, volatile.shared) {
            while let Err(problem) = shared.reclaim(held.clone()) {
                log::error!(
                    "Store reclaimed, but re-registering this gateway in Redis failed: {problem}."
                );
                std::thread::sleep(RETRY);
            }
        }
    }

    /// What the successor's requests used counts for this process' budgets, and shows on its page.
    fn used_meanwhile(&self) {
        let now = UnixMs::now();
        if let Ok(models) = self.store.by_model(now) {
            self.telemetry.live.used_at_least(&DailyTotals::of_models(now, models));
        }
        let here: std::collections::BTreeMap<_, _> = self.spending.here(now).into_iter().collect();
        for (provider, spent) in self.store.spent(now).unwrap_or_default() {
            let known = here.get(&*provider).copied().unwrap_or_default();
            self.spending.add(&provider, spent.saturating_sub(known), now);
        }
    }

    /// The registration may point to the successor: the next upgrade, `gatekeeper upgrade` and systemd need
    /// this process again.
    fn reregister(self: &Arc<Self>) {
        if !self.place.is_own() {
            self.open();
        }
        systemd::ready();
    }

    /// The successor died after it had served.
    fn resume_serving(self: &Arc<Self>, pid: i32) {
        if !self.phase.resume_serving() {
            return;
        }
        self.ports.reopen();
        self.reregister();
        log::error!("Process {pid} has died. This process serves again.");
    }
}

/// By the names that are used between the two processes.
fn open_in(volatile: &InMemoryState) -> OpenCalls {
    let open = match &volatile.shared {
        Some(held) => held.open.iter().map(|(hold, _, open)| (*hold, open.tokens)).collect(),
        None => volatile.open.iter().copied().collect(),
    };
    OpenCalls { open, places: volatile.places.iter().copied().collect() }
}

/// What of it is open by now, and what came after it.
fn still_open(mut given: InMemoryState, held: OpenCalls) -> InMemoryState {
    given.places = held.places.into_iter().collect();
    match &mut given.shared {
        None => given.open = held.open.into_iter().collect(),
        Some(shared) => {
            // What the successor granted to requests of this process has holds unknown here: charged their
            // message and input.
            shared.open.retain(|(hold, ..)| held.open.contains_key(hold));
            given.open =
                shared.open.iter().map(|(_, _, open)| (open.local_hold, open.tokens)).collect();
        }
    }
    given
}
