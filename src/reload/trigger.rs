//! Wakes the file watcher for a reload on request.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub(super) struct ReloadTrigger {
    is_set: Mutex<bool>,
    wake: Condvar,
}

impl ReloadTrigger {
    pub fn set(&self) {
        *self.is_set.lock() = true;
        self.wake.notify_one();
    }

    /// Waits until it is set, `timeout` at most; whether it was, and clears it.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let mut is_set = self.is_set.lock();
        if !*is_set {
            self.wake.wait_for(&mut is_set, timeout);
        }
        std::mem::take(&mut is_set)
    }

    /// The next reload answers all requests made so far.
    pub(super) fn clear(&self) {
        *self.is_set.lock() = false;
    }
}
