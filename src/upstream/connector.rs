//! Connections to providers, from Pingora's pool.

use std::{sync::Arc, time::Duration};

use pingora_core::{
    Error, ErrorType,
    connectors::{
        ConnectorOptions,
        http::{v1, v2},
    },
    protocols::http::client::HttpSession,
    server::configuration::ServerConf,
    upstreams::peer::{HttpPeer, Peer},
};

use crate::os::fd_limit::FdBudget;

const RELEASE: Duration = Duration::from_secs(1);

/// There is no file descriptor for a new connection: no provider's fault.
pub const NO_ROOM: ErrorType = ErrorType::Custom("no room for a connection");

pub struct Connector {
    h1: v1::Connector,
    h2: v2::Connector,
    descriptors: Option<Arc<FdBudget>>,
}

/// A connection and where it leads, so that it can go back to the pool. Large: keep it in a box.
pub struct ProviderConnection {
    pub session: HttpSession,
    pub reused: bool,
    /// The whole request was written. Without that an HTTP/1 connection must not serve another: its
    /// provider would take the next request for the rest of this body.
    pub sent_whole: bool,
    peer: Arc<HttpPeer>,
}

impl Connector {
    pub fn new(conf: &ServerConf) -> Self {
        let options = ConnectorOptions::from_server_conf(conf);
        Self {
            h1: v1::Connector::new(Some(options.clone())),
            h2: v2::Connector::new(Some(options)),
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
        let (session, reused) = match pooled {
            Some(session) => (session, true),
            None if self.descriptors.as_ref().is_some_and(|known| !known.has_room()) => {
                return Error::e_explain(NO_ROOM, "too many files are open");
            }
            // Kilobytes of handshake state, needed rarely: not in every request's own memory.
            None => Box::pin(self.open(peer, fresh)).await?,
        };
        Ok(Box::new(ProviderConnection { session, reused, sent_whole: false, peer: peer.clone() }))
    }

    async fn pooled(&self, peer: &HttpPeer) -> Option<HttpSession> {
        if peer.tls()
            // A pooled connection that fails is as good as none.
            && let Ok(Some(session)) = self.h2.reused_http_session(peer).await
        {
            return Some(HttpSession::H2(session));
        }
        self.h1.reused_http_session(peer).await.map(HttpSession::H1)
    }

    /// A new connection, or one that came back to the pool just now.
    async fn open(
        &self,
        peer: &HttpPeer,
        fresh: bool,
    ) -> pingora_core::Result<(HttpSession, bool)> {
        let mut alone = peer.clone();
        if fresh {
            // Another group never meets a pooled connection, and an HTTP/2 connection of one stream
            // is never offered to others. Given back, it serves everybody.
            alone.group_key = 1;
            alone.options.max_h2_streams = 1;
        }
        if peer.tls() {
            return Ok((self.h2.new_http_session::<_, ()>(&alone).await?, false));
        }
        let (session, reused) = self.h1.get_http_session(&alone).await?;
        Ok((HttpSession::H1(session), reused))
    }

    /// Marks an HTTP/2 connection on which a request got no answer in time as not to be used again:
    /// when it is dead, every request on it would wait as long.
    pub fn discard_pooled(connection: &ProviderConnection) {
        if let HttpSession::H2(http2) = &connection.session {
            http2.conn.mark_shutdown();
        }
    }

    /// Gives a connection back. It is kept if the answer was read to its end, closed otherwise;
    /// an unfinished HTTP/2 stream is reset and its connection lives on.
    pub async fn release(&self, connection: Box<ProviderConnection>) {
        let ProviderConnection { mut session, peer, sent_whole, .. } = *connection;
        if !sent_whole && session.as_http1().is_some() {
            let _ = tokio::time::timeout(RELEASE, session.shutdown()).await;
            return;
        }
        let idle = peer.idle_timeout();
        match session {
            HttpSession::H1(session) => {
                let release = self.h1.release_http_session(session, &*peer, idle);
                if tokio::time::timeout(RELEASE, release).await.is_err() {
                    log::debug!("A connection could not be closed in time.");
                }
            }
            HttpSession::H2(session) => self.h2.release_http_session(session, &*peer, idle),
            HttpSession::Custom(()) => {}
        }
    }
}
