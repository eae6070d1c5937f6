//! What the background sync has to send again or cancel.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::LicenseId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::scripts::CancelArgs;

/// An abandoned request is cancelled on the store. If the store loses the cancellation, a dying
/// connection may still deliver the reservation; a full sync after this time removes it.
const RECHECK_AFTER: Duration = Duration::from_secs(70);
/// Minimum interval between two queries about presumed usage of one licence.
const PRESUMED_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct ResyncQueue {
    /// Licences whose full state is due.
    pub due: FxHashSet<LicenseId>,
    /// Licences whose full state is due later, by time.
    delayed: VecDeque<(Instant, LicenseId)>,
    /// Reservations to be cancelled on the store.
    pub cancellations: Vec<CancelArgs>,
    /// When the other gateways were last asked about the presumed usage of a licence.
    queried_at: FxHashMap<LicenseId, Instant>,
}

impl ResyncQueue {
    pub fn cancel(&mut self, cancel: CancelArgs) {
        self.delayed.push_back((Instant::now() + RECHECK_AFTER, cancel.license));
        self.cancellations.push(cancel);
    }

    /// Whether the other gateways are to be asked about a licence now.
    pub fn may_query(&mut self, license: LicenseId) -> bool {
        let now = Instant::now();
        self.queried_at.retain(|_, at| now.duration_since(*at) < PRESUMED_INTERVAL);
        let is_first = !self.queried_at.contains_key(&license);
        self.queried_at.entry(license).or_insert(now);
        is_first
    }

    pub fn take_due(&mut self) -> Vec<LicenseId> {
        let now = Instant::now();
        while let Some((_, license)) = self.delayed.pop_front_if(|(due, _)| *due <= now) {
            self.due.insert(license);
        }
        self.due.drain().collect()
    }
}
