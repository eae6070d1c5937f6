//! A connection for each thread that serves requests: a request does not wake another thread to ask
//! the store, and what its thread asks at one time goes out together.

use std::{
    cell::{Cell, RefCell},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    connection::{self, RedisConnection},
    timing::CONNECT,
    url::RedisUrl,
};

/// So many late operations within this time, and the connection of a thread is made anew.
const LATE: u32 = 3;
const WITHIN: Duration = Duration::from_secs(2);

/// What a thread has.
pub enum ThreadConnection {
    Is(RedisConnection),
    /// Nothing yet; the caller is to connect.
    Begins,
    /// Another task is connecting.
    Comes,
}

/// The number of a store, or of a new connection: no other in this process has it.
pub fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    NUMBERS.fetch_add(1, Relaxed) + 1
}

/// Which connection a thread is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub store: u64,
    /// It changes when the connection to the store is made anew.
    pub epoch: u64,
}

thread_local! {
    /// One for each store: a process has one, but for tests.
    static OWN: RefCell<Vec<(Key, Option<RedisConnection>)>> = const { RefCell::new(Vec::new()) };
}

/// An operation was late on this thread while others were answered in time.
pub fn late(store: u64) {
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
        OWN.with_borrow_mut(|own| own.retain(|(key, _)| key.store != store));
    }
}

pub fn find(key: Key) -> ThreadConnection {
    OWN.with_borrow_mut(|own| match own.iter().find(|(known, _)| *known == key) {
        Some((_, wire)) => wire.clone().map_or(ThreadConnection::Comes, ThreadConnection::Is),
        None => {
            own.retain(|(known, _)| known.store != key.store);
            own.push((key, None));
            ThreadConnection::Begins
        }
    })
}

/// Connects this thread, beside whatever it does. One that fails uses the common connection.
pub fn connect(address: RedisUrl, key: Key) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        if let Ok(Ok(made)) =
            tokio::time::timeout(CONNECT, connection::connect(&address, CONNECT)).await
        {
            OWN.with_borrow_mut(|own| {
                if let Some((_, wire)) = own.iter_mut().find(|(known, _)| *known == key) {
                    *wire = Some(made);
                }
            });
        }
    });
}
