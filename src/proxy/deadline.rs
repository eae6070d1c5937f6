//! A deadline over a whole request head.
//!
//! Pingora times each read of a head, so that one byte a minute holds a connection for days. The
//! app below wraps Pingora's: it runs a request until its first hook says that the head is here,
//! and drops the connection if that does not happen in time.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::http::{ServerSession, v2::server::H2Options},
    server::ShutdownWatch,
};

use crate::{
    server::descriptors::{Descriptors, Idle},
    snapshot::Snapshot,
};

/// Seconds an idle keep-alive connection of an app is kept. Pingora gives new connections 60; one
/// more tells those that have served a request.
pub const KEEPALIVE: u64 = 61;

tokio::task_local! {
    static HEAD_SEEN: Cell<bool>;
}

/// Called by the first hook of a request.
pub fn head_is_here() {
    // Outside of a wrapped app there is no deadline to lift.
    let _ = HEAD_SEEN.try_with(|seen| seen.set(true));
}

/// An HTTP app whose request heads must come in time.
pub struct Deadline<A> {
    inner: Arc<A>,
    /// Says how long a head may take.
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// Requests, and connections that wait for one.
    sessions: Arc<AtomicUsize>,
    /// Where idle connections are counted.
    descriptors: Option<Arc<Descriptors>>,
}

impl<A> Deadline<A> {
    pub fn new(inner: A, snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        Self { inner: Arc::new(inner), snapshot, sessions: Arc::default(), descriptors: None }
    }

    /// Counts connections on which no request is under way.
    #[must_use]
    pub fn counting(mut self, descriptors: Arc<Descriptors>) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    /// For the head of a connection's first request, or of a later one: the idle time comes on top.
    fn limit(&self, reused: bool) -> Duration {
        let head = self.snapshot.load().settings.server.limits.header_timeout;
        if reused { Duration::from_secs(KEEPALIVE) + head } else { head }
    }

    /// How many requests and idle HTTP/1.1 connections there are; of all clones together.
    pub fn sessions(&self) -> Arc<AtomicUsize> {
        self.sessions.clone()
    }
}

impl<A> Clone for Deadline<A> {
    /// The same app.
    fn clone(&self) -> Self {
        let (inner, snapshot) = (self.inner.clone(), self.snapshot.clone());
        let (sessions, descriptors) = (self.sessions.clone(), self.descriptors.clone());
        Self { inner, snapshot, sessions, descriptors }
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(sessions: &'a AtomicUsize) -> Self {
        sessions.fetch_add(1, Relaxed);
        Self(sessions)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Deadline<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let _counted = Counted::new(&self.sessions);
        // A connection that was used before carries the keep-alive its last request set.
        let reused = session.get_keepalive() == Some(KEEPALIVE);
        let limit = self.limit(reused);
        let idle = self.descriptors.as_ref().map(Descriptors::idle);
        let run = self.inner.process_new_http(session, shutdown);
        HEAD_SEEN.scope(Cell::new(false), until_head(run, limit, idle)).await.flatten()
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.inner.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.inner.server_options()
    }

    /// The port is closed, and may be opened again. Pingora's own would drop connections that wait for a
    /// request, which may be on its way.
    async fn http_cleanup(&self) {}
}

/// Runs to the end unless the head does not come within `limit`; `idle` until then.
async fn until_head<T>(
    run: impl Future<Output = T>,
    limit: Duration,
    mut idle: Option<Idle>,
) -> Option<T> {
    let mut run = pin!(run);
    let mut timer = pin!(tokio::time::sleep(limit));
    poll_fn(|context| match run.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if HEAD_SEEN.with(Cell::get) => {
            idle = None;
            Poll::Pending
        }
        Poll::Pending => timer.as_mut().poll(context).map(|()| None),
    })
    .await
}
