//! An answer that is read on though its app has left, for the provider's own count of it.
//!
//! The request stays what it is meanwhile: its reservation is open, its licence's place is taken, it
//! counts as in flight. Only the app is spared: its connection ends at once.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Answers that are drained at one time in this process; further ones are cut.
const PLACES: usize = 32;
/// From the app's leaving on.
pub const TIME: Duration = Duration::from_secs(30);
/// Bytes of one answer that are read after its app has left.
const BYTES: usize = 1024 * 1024;

/// The places there are, and whether the process is about to end.
pub struct Drains {
    places: Semaphore,
    ending: watch::Sender<bool>,
}

impl Default for Drains {
    fn default() -> Self {
        Self { places: Semaphore::new(PLACES), ending: watch::Sender::new(false) }
    }
}

impl Drains {
    /// A place, if one is free.
    pub fn begin(&self) -> Option<Drain<'_>> {
        let place = self.places.try_acquire().ok()?;
        Some(Drain { _place: place, ending: self.ending.subscribe(), bytes: BYTES })
    }

    /// Ends all drains, and lets none begin: what came until now is charged.
    pub fn end(&self) {
        self.places.close();
        self.ending.send_replace(true);
    }
}

/// One answer's place among those that are drained, until dropped.
pub struct Drain<'a> {
    _place: SemaphorePermit<'a>,
    ending: watch::Receiver<bool>,
    bytes: usize,
}

impl Drain<'_> {
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
        let drains = Drains::default();
        let mut taken: Vec<_> = (0..PLACES).map(|_| drains.begin().unwrap()).collect();
        assert!(drains.begin().is_none());
        taken.pop();
        assert!(drains.begin().is_some());
    }

    #[test]
    fn bytes_have_an_end() {
        let drains = Drains::default();
        let mut drain = drains.begin().unwrap();
        assert!(drain.take(BYTES - 1) && drain.take(1) && drain.take(0));
        assert!(!drain.take(1));
    }

    #[tokio::test]
    async fn the_end_of_the_process_ends_those_that_go_on_and_lets_none_begin() {
        let drains = Drains::default();
        let mut drain = drains.begin().unwrap();
        let early = tokio::time::timeout(Duration::from_millis(10), drain.ended()).await;
        assert!(early.is_err());
        drains.end();
        drain.ended().await;
        assert!(drains.begin().is_none());
    }
}
