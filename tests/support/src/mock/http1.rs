//! The provider's side of a connection with HTTP/1.1.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{
    Seen, State, key_of,
    reply::{Framing, Reply, Step},
};

pub enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    fn tcp(&self) -> &TcpStream {
        match self {
            Io::Plain(tcp) => tcp,
            Io::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Why a connection ends.
pub enum End {
    /// By the script.
    Ours,
    /// The other side left.
    Theirs,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Theirs
    }
}

pub struct Connection {
    io: Io,
    index: usize,
    /// Bytes read and not used yet.
    pending: Vec<u8>,
    state: Arc<Mutex<State>>,
    /// Nothing is read any more.
    deaf: bool,
}

impl Connection {
    pub fn new(io: Io, index: usize, state: Arc<Mutex<State>>) -> Self {
        Self { io, index, pending: Vec::new(), state, deaf: false }
    }

    pub async fn serve(mut self) -> Result<(), End> {
        loop {
            let (mut seen, mut at) = (self.read_head().await?, None);
            let by_text = !self.state.lock().by_text.is_empty();
            if by_text {
                self.read_body(&mut seen).await?;
            }
            let (reply, place) = {
                let mut state = self.state.lock();
                let reply = state.reply(&seen);
                if reply.early {
                    state.seen.push(seen.clone());
                    at = Some(state.seen.len() - 1);
                }
                (reply, at)
            };
            if !reply.early && !by_text {
                self.read_body(&mut seen).await?;
            }
            let place = place.unwrap_or_else(|| {
                let mut state = self.state.lock();
                state.seen.push(seen.clone());
                state.seen.len() - 1
            });
            self.deaf = reply.deaf;
            let end = self.answer(&reply).await;
            {
                let mut state = self.state.lock();
                // `forget` may have emptied the list meanwhile.
                if let Some(entry) = state.seen.get_mut(place).filter(|entry| entry.at == seen.at) {
                    entry.answered = end.is_ok();
                    entry.left = matches!(end, Err(End::Theirs)).then(Instant::now);
                }
            }
            end?;
            if reply.deaf {
                std::future::pending::<()>().await;
            }
            if reply.closes() {
                let _ = self.io.shutdown().await;
                return Ok(());
            }
            if reply.early {
                self.read_body(&mut seen).await?;
            }
        }
    }

    async fn fill(&mut self) -> Result<(), End> {
        let mut buffer = [0; 64 * 1024];
        let count = self.io.read(&mut buffer).await?;
        if count == 0 {
            return Err(End::Theirs);
        }
        self.pending.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    async fn read_head(&mut self) -> Result<Seen, End> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let head: Vec<u8> = self.pending.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or("").split(' ');
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let key = key_of(&headers);
        Ok(Seen {
            connection: self.index,
            method: first.next().unwrap_or("").into(),
            path: first.next().unwrap_or("").into(),
            head,
            headers,
            body: Vec::new(),
            key,
            at: Instant::now(),
            left: None,
            answered: false,
        })
    }

    async fn read_body(&mut self, seen: &mut Seen) -> Result<(), End> {
        if seen.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                let line = self.read_line().await?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| End::Ours)?;
                if size == 0 {
                    while !self.read_line().await?.is_empty() {}
                    return Ok(());
                }
                let chunk = self.take(size).await?;
                seen.body.extend_from_slice(&chunk);
                self.read_line().await?;
            }
        }
        let length = seen.header("content-length").and_then(|value| value.parse().ok());
        seen.body = self.take(length.unwrap_or(0)).await?;
        Ok(())
    }

    async fn read_line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, size: usize) -> Result<Vec<u8>, End> {
        while self.pending.len() < size {
            self.fill().await?;
        }
        Ok(self.pending.drain(..size).collect())
    }

    async fn answer(&mut self, reply: &Reply) -> Result<(), End> {
        for step in &reply.before_head {
            self.step(step, Framing::UntilClose).await?;
        }
        self.put(&reply.head()).await?;
        for step in &reply.body {
            self.step(step, reply.framing).await?;
        }
        if reply.framing == Framing::Chunked {
            self.put(b"0\r\n\r\n").await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, framing: Framing) -> Result<(), End> {
        match step {
            Step::Write(bytes) => self.write(bytes, framing).await,
            Step::Bytewise(bytes) => {
                for byte in bytes.chunks(1) {
                    self.write(byte, framing).await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            Step::Wait(time) => self.watch(tokio::time::sleep(*time)).await,
            Step::Gate(gate) => self.watch(gate.pass()).await,
            Step::Hang => self.watch(std::future::pending()).await,
            Step::GoAway => Ok(()),
            Step::Close => {
                let _ = self.io.shutdown().await;
                Err(End::Ours)
            }
            Step::Reset | Step::Refuse => {
                let _ = self.io.tcp().set_zero_linger();
                Err(End::Ours)
            }
            Step::Endless(bytes, pause) => loop {
                self.write(bytes, framing).await?;
                self.watch(tokio::time::sleep(*pause)).await?;
            },
        }
    }

    async fn write(&mut self, bytes: &[u8], framing: Framing) -> Result<(), End> {
        if framing != Framing::Chunked {
            return self.put(bytes).await;
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.put(&chunk).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.io.write_all(bytes).await?;
        Ok(self.io.flush().await?)
    }

    /// Waits for `done`, and notices when the other side leaves meanwhile.
    async fn watch(&mut self, done: impl Future<Output = ()>) -> Result<(), End> {
        let deaf = self.deaf;
        tokio::pin!(done);
        loop {
            tokio::select! {
                () = &mut done => return Ok(()),
                more = self.fill(), if !deaf => more?,
            }
        }
    }
}
