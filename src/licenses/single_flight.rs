//! Single flight (request coalescing): at most one look-up per licence at a time; requests that arrive during it
//! wait for its result.

use std::sync::Arc;

use gatekeeper_filters::kernel::LicenseId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::watch;

/// How a flight ended: what is known now is where it is always found, or why nothing new is.
pub type FlightResult = Result<(), &'static str>;

#[derive(Default)]
pub struct SingleFlight {
    open: Mutex<FxHashMap<LicenseId, Followers>>,
}

type Followers = watch::Receiver<Option<FlightResult>>;

/// The request that performs the look-up. Dropping it ends the flight in any case.
pub struct Leader {
    flights: Arc<SingleFlight>,
    id: LicenseId,
    tell: watch::Sender<Option<FlightResult>>,
}

impl SingleFlight {
    /// Joins the flight of a licence, or starts one: then there is a leader, too. `None` when the
    /// answer came between the caller's look at it and now.
    pub fn join(
        self: &Arc<Self>,
        id: LicenseId,
        has_landed: impl FnOnce() -> bool,
    ) -> Option<(Follower, Option<Leader>)> {
        let mut open = self.open.lock();
        if let Some(waiting) = open.get(&id) {
            return Some((Follower(waiting.clone()), None));
        }
        // Leaders write down what they learned before they leave the list.
        if has_landed() {
            return None;
        }
        let (tell, waiting) = watch::channel(None);
        open.insert(id, waiting.clone());
        drop(open);
        Some((Follower(waiting), Some(Leader { flights: self.clone(), id, tell })))
    }

    pub fn is_open(&self, id: &LicenseId) -> bool {
        self.open.lock().contains_key(id)
    }
}

/// A place on a flight.
pub struct Follower(Followers);

impl Follower {
    pub async fn result(mut self) -> FlightResult {
        match self.0.wait_for(Option::is_some).await {
            Ok(result) => result.unwrap_or(Err("the check ended without an outcome")),
            Err(_) => Err("the check broke off"),
        }
    }
}

impl Leader {
    pub fn finish(self, result: FlightResult) {
        self.tell.send_replace(Some(result));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.flights.open.lock().remove(&self.id);
    }
}
