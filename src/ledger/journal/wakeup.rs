//! Wakes a background thread, or stops it.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub struct Wakeup {
    state: Mutex<WakeupState>,
    changed: Condvar,
}

#[derive(Default)]
struct WakeupState {
    woken: bool,
    stopped: bool,
}

impl Wakeup {
    pub fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    /// As it was in the beginning.
    pub fn reset(&self) {
        *self.state.lock() = WakeupState::default();
    }

    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Sleeps until woken, stopped or `timeout`; true if stopped.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.woken && !state.stopped {
            self.changed.wait_for(&mut state, timeout);
        }
        state.woken = false;
        state.stopped
    }
}
