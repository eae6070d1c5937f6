//! Connections to providers, from Pingora's pool.

use std::{net::SocketAddr, time::Duration};

use pingora_core::{
    connectors::{ConnectorOptions, http::Connector as PingoraConnector},
    protocols::{TcpKeepalive, http::client::HttpSession},
    server::configuration::ServerConf,
    upstreams::peer::{HttpPeer, Peer},
};

use crate::pool::Provider;

/// Idle connections are kept a little shorter than most servers keep them.
const IDLE: Duration = Duration::from_secs(55);
/// A connection whose network is gone is noticed by these, not by the kernel's quarter of an hour.
const PING: Duration = Duration::from_secs(15);
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::ZERO,
};
/// Bytes a provider may send ahead of what an app has read.
const H2_STREAM_WINDOW: u32 = 512 * 1024;
const RELEASE: Duration = Duration::from_secs(1);

pub struct Connector {
    inner: PingoraConnector<()>,
}

/// A connection and where it leads, so that it can go back to the pool. Large: keep it in a box.
pub struct Connection {
    pub session: HttpSession,
    pub reused: bool,
    /// The whole request was written. Without that an HTTP/1 connection must not serve another: its
    /// provider would take the next request for the rest of this body.
    pub sent_whole: bool,
    peer: Box<HttpPeer>,
}

impl Connector {
    pub fn new(conf: &ServerConf) -> Self {
        Self { inner: PingoraConnector::new(Some(ConnectorOptions::from_server_conf(conf))) }
    }

    /// A connection to the provider; a fresh one when `fresh`.
    ///
    /// # Errors
    /// The connect, the TLS handshake or the certificate failed.
    pub async fn connect(
        &self,
        provider: &Provider,
        address: SocketAddr,
        fresh: bool,
    ) -> pingora_core::Result<Box<Connection>> {
        let mut peer = Box::new(peer(provider, address));
        let common = peer.options.max_h2_streams;
        if fresh {
            // Another group never meets a pooled connection, and an HTTP/2 connection of one stream
            // is never offered to others.
            peer.group_key = 1;
            peer.options.max_h2_streams = 1;
        }
        // Kilobytes of TLS handshake that the request would hold for as long as its answer lasts.
        let (session, reused) = Box::pin(self.inner.get_http_session(&*peer)).await?;
        // Given back, a fresh connection serves everybody.
        peer.group_key = 0;
        peer.options.max_h2_streams = common;
        Ok(Box::new(Connection { session, reused: reused && !fresh, sent_whole: false, peer }))
    }

    /// Marks an HTTP/2 connection on which a request got no answer in time as not to be used again:
    /// when it is dead, every request on it would wait as long.
    pub fn distrust(connection: &Connection) {
        if let HttpSession::H2(http2) = &connection.session {
            http2.conn.mark_shutdown();
        }
    }

    /// Gives a connection back. It is kept if the answer was read to its end, closed otherwise;
    /// an unfinished HTTP/2 stream is reset and its connection lives on.
    pub async fn release(&self, connection: Box<Connection>) {
        let Connection { mut session, peer, sent_whole, .. } = *connection;
        if !sent_whole && session.as_http1().is_some() {
            let _ = tokio::time::timeout(RELEASE, session.shutdown()).await;
            return;
        }
        let release = self.inner.release_http_session(session, &*peer, peer.idle_timeout());
        if tokio::time::timeout(RELEASE, release).await.is_err() {
            log::debug!("A connection could not be closed in time.");
        }
    }
}

fn peer(provider: &Provider, address: SocketAddr) -> HttpPeer {
    let endpoint = &provider.endpoint;
    let timeouts = &provider.settings.timeouts;
    // Without a name rustls would check no certificate at all.
    let name = if endpoint.tls { endpoint.host.clone() } else { String::new() };
    let mut peer = HttpPeer::new(address, endpoint.tls, name);
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect * 2);
    options.idle_timeout = Some(IDLE);
    options.tcp_keepalive = Some(KEEPALIVE);
    if endpoint.tls {
        options.set_http_version(2, 1);
        options.max_h2_streams = 100;
        options.h2_ping_interval = Some(PING);
        // One slow reader must not stall the other streams of its connection.
        options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
    }
    peer
}
