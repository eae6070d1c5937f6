//! State of one client connection, shared by its own task and the one that frees connections.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use pingora_core::protocols::{Stream, http::ServerSession};

use super::address_block::Block;

/// `waits_since` of a connection with a request under way.
const BUSY: u64 = u64::MAX;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds on a monotonic clock.
pub fn now() -> u64 {
    START.elapsed().as_millis() as u64
}

pub struct ClientConnection {
    /// Where it comes from, if limits by address hold for it.
    pub(super) block: Option<Block>,
    /// When the last byte of the client came.
    last_byte: AtomicU64,
    /// Since when no request is under way.
    waits_since: AtomicU64,
    /// Requests under way; more than one on HTTP/2 only.
    open: AtomicU32,
    /// A valid licence has asked on it.
    licensed: AtomicBool,
    /// The session's first hook has seen the head.
    accepted: AtomicBool,
    /// The answer to this request is the last one here.
    last: AtomicBool,
    leave: AtomicBool,
    waker: AtomicWaker,
    /// What a session gave back that the parser below refused.
    given_back: Mutex<Option<(Stream, u16)>>,
}

impl ClientConnection {
    pub(super) fn new(block: Option<Block>) -> Arc<Self> {
        let now = now();
        Arc::new(Self {
            block,
            last_byte: AtomicU64::new(now),
            waits_since: AtomicU64::new(now),
            open: AtomicU32::new(0),
            licensed: AtomicBool::new(false),
            accepted: AtomicBool::new(true),
            last: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            given_back: Mutex::default(),
        })
    }

    /// The connection that a session runs on.
    pub fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        let digest = session.digest()?.proxy_digest.as_deref()?;
        digest.user_data.as_ref()?.downcast_ref()
    }

    pub(super) fn byte_came(&self) {
        self.last_byte.store(now(), Relaxed);
    }

    /// Milliseconds since the last byte came.
    pub(super) fn quiet_ms(&self, now: u64) -> u64 {
        now.saturating_sub(self.last_byte.load(Relaxed))
    }

    /// Milliseconds since a request was under way; `None` while one is.
    pub(super) fn waits_ms(&self, now: u64) -> Option<u64> {
        match self.waits_since.load(Relaxed) {
            BUSY => None,
            since => Some(now.saturating_sub(since)),
        }
    }

    /// A request begins; whether it is the only one.
    pub(super) fn begin(&self) -> bool {
        let first = self.open.fetch_add(1, Relaxed) == 0;
        if first {
            self.waits_since.store(BUSY, Relaxed);
        }
        first
    }

    /// A request ended; whether it was the last that was under way.
    pub(super) fn end(&self) -> bool {
        let last = self.open.fetch_sub(1, Relaxed) == 1;
        if last {
            self.waits_since.store(now(), Relaxed);
        }
        last
    }

    /// A head goes to the parser below, whose message is the last here or not.
    pub(super) fn hand_over(&self, last: bool) {
        self.accepted.store(false, Relaxed);
        self.last.store(last, Relaxed);
    }

    /// Called for a request of a valid licence: the connection no longer counts as unauthenticated.
    pub fn license(&self) {
        self.licensed.store(true, Relaxed);
    }

    pub(super) fn is_licensed(&self) -> bool {
        self.licensed.load(Relaxed)
    }

    /// Called by the first hook of a request.
    pub fn accept(&self) {
        self.accepted.store(true, Relaxed);
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.accepted.load(Relaxed)
    }

    /// Whether the connection ends with this answer: its chunks are not to be trusted, or something is
    /// behind the request that will not be answered.
    pub fn is_last(&self) -> bool {
        self.last.load(Relaxed)
    }

    /// Prefixed with the first bytes of the parser's response.
    pub(super) fn give_back(&self, stream: Stream, said: [u8; 12]) {
        let status =
            said.get(9..).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        *self.given_back.lock() = Some((stream, status.unwrap_or(400)));
    }

    /// The stream, and the status of the refusal.
    pub(super) fn take_back(&self) -> Option<(Stream, u16)> {
        self.given_back.lock().take()
    }

    /// Closes it, unless a request has begun.
    pub(super) fn tell_to_leave(&self) {
        self.leave.store(true, Relaxed);
        self.waker.wake();
    }

    pub(super) fn is_told(&self) -> bool {
        self.leave.load(Relaxed)
    }

    /// Runs a future to its end, unless the connection is told to close while no request is under way, or
    /// `limit` passes before one is. Bytes that have arrived already are handled first.
    pub(super) async fn unless_told<T>(
        &self,
        limit: Option<Duration>,
        run: impl Future<Output = T>,
    ) -> Option<T> {
        let mut run = pin!(run);
        let mut timer = pin!(limit.map(tokio::time::sleep));
        std::future::poll_fn(|context| {
            if let Poll::Ready(done) = run.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            self.waker.register(context.waker());
            if self.open.load(Relaxed) > 0 {
                // It was asked too late.
                self.leave.store(false, Relaxed);
                return Poll::Pending;
            }
            if self.leave.load(Relaxed) {
                return Poll::Ready(None);
            }
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(context).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }
}
