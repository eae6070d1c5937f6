//! Slots for reading an answer to its end after the app has left (`on_disconnect: drain`).
//!
//! The request stays open while it is read: its reservation, its place of the licence and its slot among the
//! requests in flight are kept. Only the connection of the app ends at once.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use gatekeeper_filters::kernel::LicenseId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

/// Concurrently drained answers of this process; further ones are cut.
const PLACES: usize = 32;
/// Of those, by one licence: else one buyer takes them all.
const EACH: u8 = 2;
/// From the app's leaving on.
pub const TIME: Duration = Duration::from_secs(30);
/// Bytes of one answer that are read after its app has left.
const BYTES: usize = 1024 * 1024;

/// The places there are, and whether the process is about to end.
pub struct DrainSlots {
    places: Semaphore,
    /// Places taken, by licence.
    taken: Mutex<FxHashMap<LicenseId, u8>>,
    ending: watch::Sender<bool>,
    /// Open answers are cut off, whether their apps are there or not.
    is_cut: AtomicBool,
    cutting: Notify,
}

impl Default for DrainSlots {
    fn default() -> Self {
        let (places, ending) = (Semaphore::new(PLACES), watch::Sender::new(false));
        let (is_cut, cutting) = (AtomicBool::new(false), Notify::new());
        Self { places, taken: Mutex::default(), ending, is_cut, cutting }
    }
}

impl DrainSlots {
    /// A place for an answer of this licence, if one is free.
    pub fn begin(&self, license: LicenseId) -> Option<DrainSlot<'_>> {
        let place = self.places.try_acquire().ok()?;
        let mut taken = self.taken.lock();
        let count = taken.entry(license).or_default();
        if *count == EACH {
            return None;
        }
        *count += 1;
        let share = DrainShare { drains: self, license };
        Some(DrainSlot {
            _place: place,
            _share: share,
            ending: self.ending.subscribe(),
            bytes: BYTES,
        })
    }

    /// Ends all drains, and lets none begin: what came until now is charged.
    pub fn end(&self) {
        self.places.close();
        self.ending.send_replace(true);
    }

    /// Cuts all answers off: what came until now is charged.
    pub fn cut(&self) {
        self.is_cut.store(true, Relaxed);
        self.cutting.notify_waiters();
        self.end();
    }

    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// Resolves when answers are cut off. Cancel-safe.
    pub async fn cut_off(&self) {
        let cut = self.cutting.notified();
        if !self.is_cut() {
            cut.await;
        }
    }
}

/// One of a licence's places, until dropped.
struct DrainShare<'a> {
    drains: &'a DrainSlots,
    license: LicenseId,
}

impl Drop for DrainShare<'_> {
    fn drop(&mut self) {
        let mut taken = self.drains.taken.lock();
        if let Some(count) = taken.get_mut(&self.license) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.license);
            }
        }
    }
}

/// One answer's place among those that are drained, until dropped.
pub struct DrainSlot<'a> {
    _place: SemaphorePermit<'a>,
    _share: DrainShare<'a>,
    ending: watch::Receiver<bool>,
    bytes: usize,
}

impl DrainSlot<'_> {
    /// Resolves when the process is about to end. Cancel-safe.
    pub async fn ended(&mut self) {
        // Without a sender there is no process that could go on.
        let _ = self.ending.wait_for(|ending| *ending).await;
    }

    /// Whether so many bytes more may be read.
    pub fn take(&mut self, bytes: usize) -> bool {
        let enough = bytes <= self.bytes;
        self.bytes = self.bytes.saturating_sub(bytes);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_each_comes_back() {
        let drains = DrainSlots::default();
        let mut taken: Vec<_> =
            (0..PLACES).map(|nth| drains.begin(license(nth / 2)).unwrap()).collect();
        assert!(drains.begin(license(99)).is_none());
        taken.pop();
        assert!(drains.begin(license(99)).is_some());
        drop(taken);
        assert!(drains.taken.lock().is_empty());
    }

    #[test]
    fn one_licence_takes_two_places_at_most() {
        let drains = DrainSlots::default();
        let (first, _second) = (drains.begin(license(1)), drains.begin(license(1)));
        assert!(first.is_some() && drains.begin(license(1)).is_none());
        assert!(drains.begin(license(2)).is_some());
        drop(first);
        assert!(drains.begin(license(1)).is_some());
    }

    fn license(nth: usize) -> LicenseId {
        LicenseId([nth as u8; 32])
    }

    #[test]
    fn bytes_have_an_end() {
        let drains = DrainSlots::default();
        let mut drain = drains.begin(license(1)).unwrap();
        assert!(drain.take(BYTES - 1) && drain.take(1) && drain.take(0));
        assert!(!drain.take(1));
    }

    #[tokio::test]
    async fn the_end_of_the_process_ends_those_that_go_on_and_lets_none_begin() {
        let drains = DrainSlots::default();
        let mut drain = drains.begin(license(1)).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(10), drain.ended()).await;
        assert!(early.is_err());
        drains.end();
        drain.ended().await;
        assert!(drains.begin(license(1)).is_none());
    }
}
