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

use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::http::{ServerSession, v2::server::H2Options},
    server::ShutdownWatch,
};

use crate::server::descriptors::{Descriptors, Idle};

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
    /// For the first head of a connection.
    first: Duration,
    /// For a later one: the idle time comes on top.
    later: Duration,
    /// Where idle connections are counted.
    descriptors: Option<Arc<Descriptors>>,
}

impl<A> Deadline<A> {
    pub fn new(inner: A, head: Duration) -> Self {
        let idle = Duration::from_secs(KEEPALIVE);
        Self { inner: Arc::new(inner), first: head, later: idle + head, descriptors: None }
    }

    /// Counts connections on which no request is under way.
    #[must_use]
    pub fn counting(mut self, descriptors: Arc<Descriptors>) -> Self {
        self.descriptors = Some(descriptors);
        self
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
        let limit = if reused { self.later } else { self.first };
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

    async fn http_cleanup(&self) {
        self.inner.http_cleanup().await;
    }
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
