//! Connections to providers: Pingora's connector opens them and keeps those of HTTP/2; those of HTTP/1 wait in
//! [`IdleConnections`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora_core::{
    Error, ErrorType,
    connectors::{ConnectorOptions, http::v2},
    protocols::http::client::HttpSession,
    server::{ShutdownWatch, configuration::ServerConf},
    services::background::BackgroundService,
    upstreams::peer::{HttpPeer, Peer},
};
use tokio::time::MissedTickBehavior;

use super::{
    http1::Http1Session, idle_connections::IdleConnections, provider_session::ProviderSession,
};
use crate::os::fd_limit::FdBudget;

/// How long a goodbye may take.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// How long the end of an answer is waited for behind its last event before the app goes on: most come with it. Longer
/// than `near_timer`'s, so that it wakes no driver.
const TAIL: Duration = Duration::from_millis(120);
/// How long, and how much, is read then.
const READ_OUT: Duration = Duration::from_secs(1);
const MOST_READ_OUT: usize = 64 * 1024;

/// How often idle connections are looked at. One that a provider closed is found at once when it is to be used.
const SWEEP: Duration = Duration::from_secs(1);

/// There is no file descriptor for a new connection: no provider's fault.
pub const NO_ROOM: ErrorType = ErrorType::Custom("no room for a connection");

pub struct Connector {
    http2: v2::Connector,
    idle: IdleConnections,
    descriptors: Option<Arc<FdBudget>>,
}

/// A connection and where it leads, so that it can be given back. Large: keep it in a box.
pub struct ProviderConnection {
    pub session: ProviderSession,
    pub reused: bool,
    /// The whole request was written. Without that an HTTP/1 connection must not serve another: its
    /// provider would take the next request for the rest of this body.
    pub sent_whole: bool,
    peer: Arc<HttpPeer>,
}

impl ProviderConnection {
    /// Reads what is behind the end of an answer, within bounds.
    async fn read_out(&mut self) {
        let mut passed = 0;
        while passed <= MOST_READ_OUT
            && let Ok(Some(bytes)) = self.session.read_body().await
        {
            passed += bytes.len();
        }
    }
}

/// A file of root certificates in place of the machine's where those can't be loaded, for which Pingora would panic: one
/// that has none, so no https server is trusted. The demo and local providers need none.
pub fn root_certificates() -> Option<String> {
    pingora_core::tls::load_native_certs().is_err().then(|| "/dev/null".to_owned())
}

impl Connector {
    pub fn new(conf: &ServerConf) -> Self {
        Self {
            http2: v2::Connector::new(Some(ConnectorOptions::from_server_conf(conf))),
            idle: IdleConnections::new(conf.threads, conf.upstream_keepalive_pool_size),
            descriptors: None,
        }
    }

    /// Opens connections only while these have room.
    #[must_use]
    pub fn within(mut self, descriptors: Arc<FdBudget>) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    /// A connection to one address of a provider; a new one when `fresh`.
    ///
    /// # Errors
    /// The connect, the TLS handshake or the certificate failed; [`NO_ROOM`].
    pub async fn connect(
        &self,
        peer: &Arc<HttpPeer>,
        fresh: bool,
    ) -> pingora_core::Result<Box<ProviderConnection>> {
        let pooled = if fresh { None } else { self.pooled(peer).await };
        let reused = pooled.is_some();
        let session = match pooled {
            Some(session) => session,
            None if self.descriptors.as_ref().is_some_and(|known| !known.has_room()) => {
                return Error::e_explain(NO_ROOM, "too many files are open");
            }
            // Kilobytes of handshake state, needed rarely: not in every request's own memory.
            None => Box::pin(self.open(peer, fresh)).await?,
        };
        Ok(Box::new(ProviderConnection { session, reused, sent_whole: false, peer: peer.clone() }))
    }

    async fn pooled(&self, peer: &HttpPeer) -> Option<ProviderSession> {
        if peer.tls() {
            // A pooled connection that fails is as good as none.
            let pooled = Box::pin(self.http2.reused_http_session(peer)).await;
            if let Ok(Some(session)) = pooled {
                return Some(ProviderSession::Http2(Box::new(session)));
            }
        }
        let stream = self.idle.take(peer.reuse_hash())?;
        Some(ProviderSession::Http1(Http1Session::new(stream)))
    }

    async fn open(&self, peer: &HttpPeer, fresh: bool) -> pingora_core::Result<ProviderSession> {
        let mut alone = peer.clone();
        if fresh {
            // With a group key of its own it never matches a pooled connection, and an HTTP/2 connection of
            // one stream is never offered to others. Once returned to the pool it serves any request.
            alone.group_key = 1;
            alone.options.max_h2_streams = 1;
        }
        match self.http2.new_http_session::<_, ()>(&alone).await? {
            HttpSession::H1(session) => {
                Ok(ProviderSession::Http1(Http1Session::new(session.into_inner())))
            }
            HttpSession::H2(session) => Ok(ProviderSession::Http2(Box::new(session))),
            HttpSession::Custom(()) => {
                Error::e_explain(ErrorType::InternalError, "a protocol that was not asked for")
            }
        }
    }

    /// Marks an HTTP/2 connection on which a request got no answer in time as not to be used again:
    /// when it is dead, every request on it would wait as long.
    pub fn discard_pooled(connection: &ProviderConnection) {
        if let ProviderSession::Http2(session) = &connection.session {
            session.conn.mark_shutdown();
        }
    }

    /// Gives back a connection whose answer is over for the app. What its provider still sends is read, so that it can
    /// serve again; where that does not come at once, no app waits for it.
    pub async fn finish(self: &Arc<Self>, mut connection: Box<ProviderConnection>) {
        let is_kept = connection.sent_whole && connection.session.is_kept();
        let goes_on = is_kept && matches!(connection.session.ended(), Ok(false));
        if goes_on && tokio::time::timeout(TAIL, connection.read_out()).await.is_err() {
            let connector = self.clone();
            tokio::spawn(async move {
                let _ = tokio::time::timeout(READ_OUT, connection.read_out()).await;
                connector.release(connection).await;
            });
            return;
        }
        self.release(connection).await;
    }

    /// Gives a connection back. It is kept if the answer was read to its end, closed otherwise;
    /// an unfinished HTTP/2 stream is reset and its connection lives on.
    pub async fn release(&self, connection: Box<ProviderConnection>) {
        let ProviderConnection { session, peer, sent_whole, .. } = *connection;
        let idle = peer.idle_timeout();
        match session {
            ProviderSession::Http2(session) => {
                self.http2.release_http_session(*session, &*peer, idle);
            }
            // A goodbye would wait behind what its provider does not read.
            ProviderSession::Http1(_) if !sent_whole => {}
            ProviderSession::Http1(mut session) if !session.is_reusable() => {
                let _ = tokio::time::timeout(SHUTDOWN, session.shutdown()).await;
            }
            ProviderSession::Http1(session) => {
                self.idle.put(peer.reuse_hash(), session.into_stream(), idle);
            }
        }
    }
}

/// Closes idle connections of HTTP/1 that are of no use any more.
pub struct IdleSweeper {
    pub connectors: Vec<Arc<Connector>>,
}

#[async_trait]
impl BackgroundService for IdleSweeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut looks = tokio::time::interval(SWEEP);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.connectors.iter().for_each(|one| one.idle.sweep()),
                _ = shutdown.changed() => return,
            }
        }
    }
}
