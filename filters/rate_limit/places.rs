//! Requests that wait for a place of their licence.
//!
//! A licence at the default `concurrency` is probably an app that sends many requests in one burst, so a
//! request waits a short time before it is refused. Waiting requests hold no body and no place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::kernel::{Demand, Denied, Grant, Ledger, LicenseId, RateRefused, RateRequest, UnixMs};

/// How long a request waits for a place of its licence.
pub const WAIT: Duration = Duration::from_secs(5);

/// Requests of one licence that may wait at the same time; each holds a connection.
const WAITING: usize = 4096;

/// A place that was given back where no request waited yet, or by a request that vanished, is not
/// announced: it is looked for this often.
const LOOK: Duration = Duration::from_secs(1);
/// The same where other gateways have places: each look is a call of the store.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(250);

/// The licences that have waiting requests.
#[derive(Default)]
pub struct ConcurrencySlots {
    licenses: Mutex<Vec<(LicenseId, Arc<Notify>)>>,
    /// How many stand in the list: while it is empty, nothing else of this is touched.
    listed: AtomicUsize,
}

impl ConcurrencySlots {
    /// Enters as soon as there is a place.
    ///
    /// # Errors
    /// As [`Ledger::enter`]; [`RateRefused::Concurrency`] after [`WAIT`], or at once where too many wait.
    pub async fn enter(&self, ledger: &dyn Ledger, pace: &RateRequest) -> Result<(), RateRefused> {
        let deadline = Instant::now() + WAIT;
        let Some(queue) = self.queue(&pace.license) else {
            let limit = pace.concurrency.unwrap_or_default();
            return Err(RateRefused::Concurrency { limit });
        };
        let queue = Queue { places: self, license: pace.license, freed: queue };
        loop {
            let freed = queue.freed.notified();
            let entered = ledger.enter(pace, UnixMs::now()).await;
            let now = Instant::now();
            if !matches!(entered, Err(RateRefused::Concurrency { .. })) || now >= deadline {
                return entered;
            }
            let _ = tokio::time::timeout_at(deadline.min(now + LOOK), freed).await;
        }
    }

    /// A place was given back: the request that has waited longest tries again.
    pub fn freed(&self, license: &LicenseId) {
        if self.listed.load(Relaxed) == 0 {
            return;
        }
        let licenses = self.licenses.lock();
        if let Some((_, freed)) = licenses.iter().find(|(waiting, _)| waiting == license) {
            freed.notify_one();
        }
    }

    /// A place in the queue of a licence; `None` where it is full.
    fn queue(&self, license: &LicenseId) -> Option<Arc<Notify>> {
        let mut licenses = self.licenses.lock();
        if let Some((_, freed)) = licenses.iter().find(|(waiting, _)| waiting == license) {
            // One reference is the list's own.
            return (Arc::strong_count(freed) <= WAITING).then(|| freed.clone());
        }
        let freed = Arc::new(Notify::new());
        licenses.push((*license, freed.clone()));
        self.listed.store(licenses.len(), Relaxed);
        Some(freed)
    }
}

/// Reserves once the licence has a place at all gateways together: those of another gateway are not
/// announced here.
///
/// # Errors
/// As [`Ledger::reserve`]; [`RateRefused::Concurrency`] after [`WAIT`].
pub async fn reserve_when_free(ledger: &dyn Ledger, demand: &Demand) -> Result<Grant, Denied> {
    let deadline = Instant::now() + WAIT;
    loop {
        tokio::time::sleep(LOOK_ELSEWHERE).await;
        let granted = ledger.reserve(demand).await;
        let is_full = matches!(granted, Err(Denied::TooFast(RateRefused::Concurrency { .. })));
        if !is_full || Instant::now() >= deadline {
            return granted;
        }
    }
}

/// One waiting request's place in the queue; the last one takes the licence off the list.
struct Queue<'a> {
    places: &'a ConcurrencySlots,
    license: LicenseId,
    freed: Arc<Notify>,
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        let mut licenses = self.places.licenses.lock();
        // This one's reference and the list's.
        if Arc::strong_count(&self.freed) <= 2 {
            licenses.retain(|(waiting, _)| *waiting != self.license);
            self.places.listed.store(licenses.len(), Relaxed);
        }
    }
}
