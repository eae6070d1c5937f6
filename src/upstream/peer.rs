//! Connections to providers, from Pingora's pool.

use std::{net::SocketAddr, time::Duration};

use pingora_core::{
    connectors::{ConnectorOptions, http::Connector as PingoraConnector},
    protocols::http::client::HttpSession,
    server::configuration::ServerConf,
    upstreams::peer::{HttpPeer, Peer},
};

use crate::pool::Provider;

/// Idle connections are kept a little shorter than most servers keep them.
const IDLE: Duration = Duration::from_secs(55);
const RELEASE: Duration = Duration::from_secs(1);

pub struct Connector {
    inner: PingoraConnector<()>,
}

/// A connection and where it leads, so that it can go back to the pool.
pub struct Connection {
    pub session: HttpSession,
    pub reused: bool,
    peer: HttpPeer,
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
    ) -> pingora_core::Result<Connection> {
        let peer = peer(provider, address);
        if !fresh {
            let (session, reused) = self.inner.get_http_session(&peer).await?;
            return Ok(Connection { session, reused, peer });
        }
        // Another group never meets a pooled connection; given back it goes to the common one.
        let mut alone = peer.clone();
        alone.group_key = 1;
        let (session, _) = self.inner.get_http_session(&alone).await?;
        Ok(Connection { session, reused: false, peer })
    }

    /// Gives a connection back. It is kept if the answer was read to its end, closed otherwise;
    /// an unfinished HTTP/2 stream is reset and its connection lives on.
    pub async fn release(&self, connection: Connection) {
        let Connection { session, peer, .. } = connection;
        let release = self.inner.release_http_session(session, &peer, peer.idle_timeout());
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
    if endpoint.tls {
        options.set_http_version(2, 1);
        options.max_h2_streams = 100;
    }
    peer
}
