//! A connection for each thread that serves requests: a request does not wake another thread to ask
//! the store, and what its thread asks at one time goes out together.

use std::{
    cell::{Cell, RefCell},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    CONNECT,
    address::Address,
    wire::{self, Wire},
};

/// So many late operations within this time, and the connection of a thread is made anew.
const LATE: u32 = 3;
const WITHIN: Duration = Duration::from_secs(2);

/// What a thread has.
pub enum Own {
    Is(Wire),
    /// Nothing yet; the caller is to connect.
    Begins,
    /// Somebody connects already.
    Comes,
}

/// The number of a new connection: in no store of this process there is another one of it.
pub fn next_epoch() -> u64 {
    static EPOCHS: AtomicU64 = AtomicU64::new(0);
    EPOCHS.fetch_add(1, Relaxed) + 1
}

thread_local! {
    /// Of the connection with this number.
    static OWN: RefCell<(u64, Option<Wire>)> = const { RefCell::new((0, None)) };
}

/// An operation was late on this thread while others were answered in time.
pub fn late() {
    thread_local! {
        static SINCE: Cell<(u32, Option<Instant>)> = const { Cell::new((0, None)) };
    }
    let (count, since) = match SINCE.get() {
        (count, Some(since)) if since.elapsed() < WITHIN => (count + 1, since),
        _ => (1, Instant::now()),
    };
    SINCE.set((count, Some(since)));
    if count >= LATE {
        SINCE.set((0, None));
        OWN.set((0, None));
    }
}

pub fn find(epoch: u64) -> Own {
    OWN.with_borrow_mut(|own| match own {
        (known, wire) if *known == epoch => wire.clone().map_or(Own::Comes, Own::Is),
        _ => {
            *own = (epoch, None);
            Own::Begins
        }
    })
}

/// Connects this thread, beside whatever it does. One that fails uses the common connection.
pub fn connect(address: Address, epoch: u64) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        if let Ok(Ok(made)) = tokio::time::timeout(CONNECT, wire::connect(&address, CONNECT)).await
        {
            OWN.with_borrow_mut(|own| {
                if own.0 == epoch {
                    own.1 = Some(made);
                }
            });
        }
    });
}
