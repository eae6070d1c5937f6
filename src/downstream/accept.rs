//! The accept loop of one listening socket.
//!
//! It replaces Pingora's, because a connection is limited from the start: capacity and share are checked
//! before any work, nothing is allocated before its first byte, and a TLS handshake has the same time limit
//! as a head.

use std::{
    io,
    net::{IpAddr, TcpListener as StdTcp},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener as StdUnix,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use pingora_core::{
    apps::HttpServerApp,
    listeners::tls::Acceptor,
    protocols::{
        GetSocketDigest, SocketDigest, Stream,
        l4::{socket::SocketAddr, stream::Stream as L4Stream},
    },
    server::ShutdownWatch,
};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::{address_block::Block, connections::Seat, serve::Service};

/// After an accept that failed for want of something.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines in the log about it.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What holds for the connections of a listener, as of now.
pub trait Rules: Send + Sync + 'static {
    /// How long a handshake, and how long a head may take.
    fn header_timeout(&self) -> Duration;
    /// `server.limits.connections_per_address`; by default a quarter of the room.
    fn per_address(&self) -> Option<usize>;
    /// Whether limits by address hold for this peer.
    fn limits(&self, peer: IpAddr) -> bool;
}

/// A socket that listens.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// # Errors
    /// It can't be watched.
    pub fn new(socket: OwnedFd, is_path: bool) -> io::Result<Self> {
        Ok(match is_path {
            true => Self::Unix(UnixListener::from_std(StdUnix::from(socket))?),
            false => Self::Tcp(TcpListener::from_std(StdTcp::from(socket))?),
        })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Accepted::Tcp(stream, peer)
            }
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
        })
    }
}

/// Completes the TLS handshake, if in time.
async fn shake(tls: &Acceptor, stream: L4Stream, seat: &Seat, limit: Duration) -> Option<Stream> {
    let shaken = seat.connection.unless_told(Some(limit), tls.tls_handshake(stream)).await;
    match shaken {
        Some(Ok(stream)) => {
            seat.connection.byte_came();
            return Some(Box::new(stream));
        }
        // Port scans cause them.
        Some(Err(error)) => log::debug!("A TLS handshake failed: {error}."),
        None => log::debug!("A TLS handshake timed out."),
    }
    None
}

enum Accepted {
    Tcp(TcpStream, std::net::SocketAddr),
    Unix(UnixStream),
}

impl Accepted {
    /// Waits for the first byte without a buffer for it; whether there is one.
    async fn speaks(&self) -> bool {
        match self {
            Self::Tcp(stream, _) => {
                if stream.ready(Interest::READABLE).await.is_err() {
                    return false;
                }
                // A balancer's check connects and closes.
                !matches!(stream.peek(&mut [0]).await, Ok(0) | Err(_))
            }
            Self::Unix(stream) => stream.ready(Interest::READABLE).await.is_ok(),
        }
    }

    fn into_stream(self) -> L4Stream {
        let (mut stream, peer) = match self {
            Self::Tcp(stream, peer) => {
                // Without it chunked answers wait for acknowledgements; a socket that is gone reports its
                // error later.
                let _ = stream.set_nodelay(true);
                (L4Stream::from(stream), Some(peer))
            }
            Self::Unix(stream) => (L4Stream::from(stream), None),
        };
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        if let Some(peer) = peer {
            let _ = digest.peer_addr.set(Some(SocketAddr::Inet(peer)));
        }
        stream.set_socket_digest(digest);
        stream
    }
}

/// What is done with the connections of a listener.
pub struct Doorway<A> {
    pub service: Service<A>,
    pub rules: Arc<dyn Rules>,
    /// On a port with TLS.
    pub tls: Option<Arc<Acceptor>>,
}

impl<A: HttpServerApp + Send + Sync + 'static> Doorway<A> {
    /// Accepts connections until `shutdown`, which also ends those that are open.
    pub async fn run(self: Arc<Self>, listener: Listener, mut shutdown: ShutdownWatch) {
        let mut said: Option<Instant> = None;
        loop {
            // In this order: what comes after the end is another process' to accept.
            let accepted = tokio::select! {
                biased;
                _ = shutdown.changed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    // What was accepted before is served, if there is a place for it.
                    let seated = tokio::select! {
                        biased;
                        seated = self.seat(&accepted) => seated,
                        _ = shutdown.changed() => return,
                    };
                    let Some(seat) = seated else { continue };
                    let (doorway, shutdown) = (self.clone(), shutdown.clone());
                    pingora_runtime::current_handle()
                        .spawn(async move { doorway.serve(accepted, seat, shutdown).await });
                }
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                        said = Some(Instant::now());
                        log::error!("A connection cannot be accepted: {error}.");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// A place for a connection, once there is one; none where its address has its share.
    async fn seat(&self, accepted: &Accepted) -> Option<Seat> {
        let connections = &self.service.connections;
        let cap = self.rules.per_address();
        let block = match accepted {
            Accepted::Tcp(_, peer) => {
                let peer = peer.ip().to_canonical();
                self.rules.limits(peer).then(|| Block::of(peer))
            }
            Accepted::Unix(_) => None,
        };
        if block.is_some_and(|block| connections.has_share(block, cap)) {
            return None;
        }
        connections.room(cap).await;
        Some(connections.admit(block))
    }

    async fn serve(&self, accepted: Accepted, seat: Seat, shutdown: ShutdownWatch) {
        let head = self.rules.header_timeout();
        let speaks = seat.connection.unless_told(Some(head), accepted.speaks()).await;
        if speaks != Some(true) {
            return;
        }
        seat.connection.byte_came();
        let stream = accepted.into_stream();
        // Apart, so that a silent connection's task is small.
        let stream: Option<Stream> = match &self.tls {
            None => Some(Box::new(stream)),
            Some(tls) => Box::pin(shake(tls, stream, &seat, head)).await,
        };
        if let Some(stream) = stream {
            Box::pin(self.service.serve(stream, &seat, head, &shutdown)).await;
        }
    }
}
