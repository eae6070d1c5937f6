//! A deadline over a whole request head.
//!
//! Pingora times each read of a head, so that one byte a minute holds a connection for days. The
//! app below wraps Pingora's: it runs a request until its first hook says that the head is here,
//! and drops the connection if that does not happen in time.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
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

use crate::snapshot::Snapshot;

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
}

impl<A> Deadline<A> {
    pub fn new(inner: A, snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        Self { inner: Arc::new(inner), snapshot }
    }

    /// For the head of a connection's first request, or of a later one: the idle time comes on top.
    fn limit(&self, reused: bool) -> Duration {
        let head = self.snapshot.load().settings.server.limits.header_timeout;
        if reused { Duration::from_secs(KEEPALIVE) + head } else { head }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Deadline<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // A connection that was used before carries the keep-alive its last request set.
        let reused = session.get_keepalive() == Some(KEEPALIVE);
        let limit = self.limit(reused);
        let run = self.inner.process_new_http(session, shutdown);
        HEAD_SEEN.scope(Cell::new(false), until_head(run, limit)).await.flatten()
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.inner.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.inner.server_options()
    }

    async fn http_cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}

/// Runs to the end unless the head does not come within `limit`.
async fn until_head<T>(run: impl Future<Output = T>, limit: Duration) -> Option<T> {
    let mut run = pin!(run);
    let mut timer = pin!(tokio::time::sleep(limit));
    poll_fn(|context| match run.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if HEAD_SEEN.with(Cell::get) => Poll::Pending,
        Poll::Pending => timer.as_mut().poll(context).map(|()| None),
    })
    .await
}
