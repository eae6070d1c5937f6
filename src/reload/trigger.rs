//! Wakes the thread that reads the configuration again.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Wakes the thread that reads the file again.
#[derive(Default)]
pub(super) struct ReloadTrigger {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl ReloadTrigger {
    pub fn ring(&self) {
        *self.rung.lock() = true;
        self.wake.notify_one();
    }

    /// Waits until it is rung, or for `at_most`; whether it was.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let mut rung = self.rung.lock();
        if !*rung {
            self.wake.wait_for(&mut rung, at_most);
        }
        std::mem::take(&mut rung)
    }

    /// Whoever rang until now is heard by what is done next.
    pub(super) fn silence(&self) {
        *self.rung.lock() = false;
    }
}
