//! A connection's bytes on their way to Pingora's session: none beyond the request under way, and back to us
//! when the session refuses its head.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
    raw_connect::ProxyDigest,
    tls::{SslDigest, TlsRef},
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

use super::connection::ClientConnection;

/// Small writes go out together, as many as fill a packet.
const WRITE_BUFFER: usize = 1460;

/// How many bytes may be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// All of it: chunks and frames delimit themselves.
    All,
    /// So many of the body. After them only whether the client is still there can be asked.
    Left(u64),
}

pub struct Watched {
    /// There until it is given back.
    io: Option<BufWriter<Stream>>,
    connection: Arc<ClientConnection>,
    digest: Arc<ProxyDigest>,
    /// Read already, and not by the session.
    ahead: BytesMut,
    readable: Readable,
    /// First bytes of what was refused unseen: the status that the parser below wrote.
    refused: [u8; 12],
}

impl Watched {
    /// # Errors
    /// Never: the head of its digest is a constant.
    pub fn new(io: Stream, connection: Arc<ClientConnection>) -> pingora_core::Result<Box<Self>> {
        let head = Box::new(ResponseHeader::build_no_case(200, Some(0))?);
        let digest = Arc::new(ProxyDigest::new(head, Some(Box::new(connection.clone()))));
        Ok(Box::new(Self::with_digest(io, connection, digest)))
    }

    fn with_digest(
        io: Stream,
        connection: Arc<ClientConnection>,
        digest: Arc<ProxyDigest>,
    ) -> Self {
        Self {
            io: Some(BufWriter::with_capacity(WRITE_BUFFER, io)),
            connection,
            digest,
            ahead: BytesMut::new(),
            readable: Readable::All,
            refused: [0; 12],
        }
    }

    /// What may be read from now on; what was read already comes first.
    pub fn allow(&mut self, readable: Readable, ahead: BytesMut) {
        self.readable = readable;
        self.ahead = ahead;
    }

    /// Takes what has come behind the last request.
    pub fn take_ahead(&mut self) -> BytesMut {
        self.readable = Readable::All;
        std::mem::take(&mut self.ahead)
    }

    /// The stream beneath.
    pub fn into_io(mut self) -> Option<Stream> {
        self.io.take().map(BufWriter::into_inner)
    }

    fn io(&mut self) -> io::Result<Pin<&mut BufWriter<Stream>>> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(io))
    }

    fn inner(&self) -> Option<&Stream> {
        self.io.as_ref().map(BufWriter::get_ref)
    }

    /// Whether the client is still there, when all of its request was read: one byte is taken, and kept.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            return Poll::Pending;
        }
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        ready!(self.io()?.poll_read(context, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.ahead.extend_from_slice(read.filled());
        self.connection.byte_came();
        Poll::Pending
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // No hook has seen the head: the parser refused it, and its response is replaced.
        let Some(mut io) = self.io.take() else { return };
        if !self.connection.is_accepted() {
            self.connection.give_back(io.into_inner(), self.refused);
        } else if !io.buffer().is_empty() {
            use futures_util::FutureExt;
            // What the socket takes without waiting.
            let _ = tokio::io::AsyncWriteExt::flush(&mut io).now_or_never();
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("readable", &self.readable).finish_non_exhaustive()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let limit = match self.readable {
            Readable::Left(0) => return self.poll_gone(context),
            Readable::Left(left) => left.min(buffer.remaining() as u64) as usize,
            Readable::All => buffer.remaining(),
        };
        if !self.ahead.is_empty() {
            let taken = limit.min(self.ahead.len());
            buffer.put_slice(&self.ahead[..taken]);
            self.ahead.advance(taken);
            self.took(taken);
            return Poll::Ready(Ok(()));
        }
        let taken = if limit == buffer.remaining() {
            let before = buffer.filled().len();
            ready!(self.io()?.poll_read(context, buffer))?;
            buffer.filled().len() - before
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(limit));
            ready!(self.io()?.poll_read(context, &mut part))?;
            let taken = part.filled().len();
            buffer.advance(taken);
            taken
        };
        self.took(taken);
        if taken > 0 {
            self.connection.byte_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl Watched {
    fn took(&mut self, bytes: usize) {
        if let Readable::Left(left) = &mut self.readable {
            *left -= bytes as u64;
        }
    }

    /// Keeps the beginning of a response that is not sent.
    fn swallow(&mut self, bytes: &[u8]) {
        if let Some(place) = self.refused.iter().position(|byte| *byte == 0) {
            let taken = bytes.len().min(self.refused.len() - place);
            self.refused[place..place + taken].copy_from_slice(&bytes[..taken]);
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.connection.is_accepted() {
            return self.io()?.poll_write(context, bytes);
        }
        self.swallow(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.is_accepted() {
            return self.io()?.poll_shutdown(context);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.connection.is_accepted() {
            return self.io()?.poll_write_vectored(context, bytes);
        }
        self.swallow(bytes.first().map_or(&[], |first| first));
        Poll::Ready(Ok(bytes.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        // A connection that the session closes silently is closed where it is given back.
        if self.connection.is_accepted() {
            let _ = tokio::io::AsyncWriteExt::flush(self).await;
            if let Some(io) = &mut self.io {
                io.get_mut().shutdown().await;
            }
        }
    }
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.inner().map_or(-1, |io| io.id())
    }
}

impl Ssl for Watched {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner()?.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner()?.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        // Nothing reads it, and it would be a list on the heap for each request.
        Vec::new()
    }

    fn get_read_pending_time(&self) -> Duration {
        Duration::ZERO
    }

    fn get_write_pending_time(&self) -> Duration {
        Duration::ZERO
    }
}

impl GetProxyDigest for Watched {
    /// The way from a session to its connection.
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }

    fn set_proxy_digest(&mut self, _digest: ProxyDigest) {}
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner()?.get_socket_digest()
    }

    fn set_socket_digest(&mut self, _digest: SocketDigest) {}
}

impl Peek for Watched {}
