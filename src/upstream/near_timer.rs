//! One timer of each serving thread that is due before those of its requests.
//!
//! Where a timer is registered that is due before all others, tokio wakes the thread's driver, be it the thread itself
//! that registers: a write to an eventfd and a turn of epoll for each request. While requests come there is a nearer one.

use std::{cell::Cell, time::Duration};

/// Below the first deadline of a request (`deadlines::MOMENT`).
const NEAR: Duration = Duration::from_millis(100);

thread_local! {
    static RUNS: Cell<bool> = const { Cell::new(false) };
    static USED: Cell<bool> = const { Cell::new(false) };
}

/// A request begins on this thread. To be called within its runtime.
pub fn keep() {
    USED.set(true);
    if !RUNS.replace(true) {
        tokio::spawn(async {
            while USED.take() {
                tokio::time::sleep(NEAR).await;
            }
            RUNS.set(false);
        });
    }
}
