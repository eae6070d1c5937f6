//! One connection from its first byte to its end.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::{
    apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::{
        ALPN, Ssl, Stream,
        http::{ServerSession, v2::server::H2Options},
    },
    server::ShutdownWatch,
};
use tokio::io::AsyncReadExt;

use super::{
    connection::ClientConnection,
    connections::{Connections, Seat},
    head::{self, Bad, Head, NoHead, Times},
    ignored_headers,
    refusal::{self, RefusedHead, Refuser},
    stream::{Readable, Watched},
};

/// Seconds an idle keep-alive connection is kept.
pub const KEEPALIVE: u64 = 61;

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Head of an HTTP/2 frame; its first three bytes are its length.
const FRAME_HEAD: usize = 9;
/// A client's settings are some six bytes each; a longer frame is the codec's to refuse.
const LONGEST_SETTINGS: usize = 1024;

/// An app whose requests are counted on the connections that they come from.
pub struct SessionGuard<A> {
    inner: Arc<A>,
    connections: Arc<Connections>,
}

impl<A> SessionGuard<A> {
    pub fn new(inner: A, connections: Arc<Connections>) -> Self {
        Self { inner: Arc::new(inner), connections }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for SessionGuard<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let connection = ClientConnection::of(&session).cloned();
        let _busy = connection.as_deref().map(|connection| self.connections.busy(connection));
        self.inner.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.inner.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.inner.server_options()
    }
}

/// What serves the connections of one port.
pub struct Service<A> {
    pub app: Arc<SessionGuard<A>>,
    pub connections: Arc<Connections>,
    pub refuser: Arc<dyn Refuser>,
    /// Requests are parsed without the headers that only operators' requests need.
    pub ignores_headers: bool,
}

impl<A> Clone for Service<A> {
    fn clone(&self) -> Self {
        let (app, connections) = (self.app.clone(), self.connections.clone());
        let ignores_headers = self.ignores_headers;
        Self { app, connections, refuser: self.refuser.clone(), ignores_headers }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Service<A> {
    /// Serves a connection to its end. `head` is how long each head may take.
    pub async fn serve(
        &self,
        stream: Stream,
        seat: &Seat,
        head: Duration,
        shutdown: &ShutdownWatch,
    ) {
        let connection = &seat.connection;
        let Ok(mut watched) = Watched::new(stream, connection.clone()) else { return };
        if matches!(watched.selected_alpn_proto(), Some(ALPN::H2)) {
            let first = connection.unless_told(Some(head), first_frame(&mut watched)).await;
            let Some(Some(first)) = first else {
                log::debug!("An HTTP/2 connection ended before its first frame.");
                return;
            };
            watched.allow(Readable::All, first);
            let run = ServerApp::process_new(&self.app, watched as Stream, shutdown);
            connection.unless_told(None, run).await;
        } else {
            self.http1(watched, connection, head, shutdown).await;
        }
    }

    /// Pingora's own loop, but that the session gets heads whole.
    async fn http1(
        &self,
        mut stream: Box<Watched>,
        connection: &Arc<ClientConnection>,
        head: Duration,
        shutdown: &ShutdownWatch,
    ) {
        let mut settings: Option<HttpPersistentSettings> = None;
        let address = peer(&stream);
        loop {
            let idle = if settings.is_some() { Duration::from_secs(KEEPALIVE) } else { head };
            let times = Times { idle, head };
            let (raw, left) =
                match head::read(&mut stream, connection, &self.connections, times).await {
                    Ok(mut head) => {
                        if self.ignores_headers {
                            head.end = ignored_headers::take_out(&mut head.bytes, head.end);
                        }
                        hand_over(head, connection)
                    }
                    Err(NoHead::Gone) => return,
                    Err(NoHead::Refused(why, head)) => {
                        let Some(io) = stream.into_io() else { return };
                        let unseen = RefusedHead { why, head: &head, address };
                        return refusal::answer(io, &*self.refuser, unseen).await;
                    }
                };
            stream.allow(left, BytesMut::new());
            let mut session = ServerSession::new_http1(stream as Stream);
            match settings.take() {
                Some(settings) => settings.apply_to_session(&mut session),
                None => session.set_keepalive(Some(KEEPALIVE)),
            }
            if *shutdown.borrow() {
                session.set_keepalive(None);
            }
            // For the envelope of a refusal.
            let mut begin = [0; 64];
            let length = raw.len().min(begin.len());
            begin[..length].copy_from_slice(&raw[..length]);
            session.set_pipelined_prefix(raw);
            let served = self.app.process_new_http(session, shutdown).await;
            if !connection.is_accepted() {
                let Some((io, status)) = connection.take_back() else { return };
                let unseen = RefusedHead { why: Bad::Unparsed(status), head: &begin, address };
                return refusal::answer(io, &*self.refuser, unseen).await;
            }
            let Some(reused) = served else { return };
            let (io, persistent) = reused.consume();
            let Ok(same) = io.into_any().downcast::<Watched>() else { return };
            (stream, settings) = (same, persistent);
            if settings.is_none() {
                return;
            }
        }
    }
}

/// What the session gets, and what it may read after that.
fn hand_over(head: Head, connection: &ClientConnection) -> (BytesMut, Readable) {
    let Head { mut bytes, end, framing } = head;
    if framing.is_chunked {
        // The chunk parser below takes an empty size for the last chunk (RFC 9112 section 7.1 wants a digit):
        // what is behind it may be data, so it must never be a request.
        connection.hand_over(true);
        return (bytes, Readable::All);
    }
    let came = (bytes.len() - end) as u64;
    let more = came > framing.length;
    if more {
        // A pipelined second request is not served, and the answer says so.
        bytes.truncate(end + framing.length as usize);
    }
    connection.hand_over(more);
    (bytes, Readable::Left(framing.length.saturating_sub(came)))
}

fn peer(stream: &Watched) -> Option<IpAddr> {
    use pingora_core::protocols::GetSocketDigest;
    let digest = stream.get_socket_digest()?;
    Some(digest.peer_addr()?.as_inet()?.ip().to_canonical())
}

/// The preface of HTTP/2 and the frame that has to follow it; `None` where it is something else.
async fn first_frame(stream: &mut Watched) -> Option<BytesMut> {
    let mut bytes = BytesMut::with_capacity(128);
    loop {
        let begun = bytes.len().min(PREFACE.len());
        if bytes[..begun] != PREFACE[..begun] {
            return None;
        }
        if let Some(frame) = bytes.get(PREFACE.len()..).filter(|rest| rest.len() >= FRAME_HEAD) {
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
            if length > LONGEST_SETTINGS || frame.len() >= FRAME_HEAD + length {
                return Some(bytes);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
