//! An HTTP/1.1 exchange with a provider (RFC 9112), on a stream of Pingora's connector: one write for head and body, one
//! parse of the answer's head without a map, and a body that is not copied.
//!
//! All reads are cancel-safe: what has come is in `buffer` before anything is awaited again.

mod chunked;
mod head;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use pingora_core::{Error, ErrorType, OrErr, protocols::Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

pub use self::head::ResponseFields;
use self::{
    chunked::Chunks,
    head::{BodyEnd, Parsed, invalid},
};

/// Bytes of an answer's head, with those of the informational ones before it.
const LONGEST_HEAD: usize = 64 * 1024;
/// Informational heads before an answer; servers send one or two.
const MOST_INFORMATIONAL: u8 = 8;
/// Room that is made for a read.
const READ: usize = 4 * 1024;
/// Room where a longer body is known to come.
const LONG_READ: usize = 64 * 1024;
/// Larger request bodies are written in slices; what is smaller leaves in one packet.
const SLICE: usize = 64 * 1024;

/// Where the body of an answer ends (RFC 9112, 6.3).
enum Framing {
    /// Bytes that are still to come.
    Length(u64),
    Chunked(Chunks),
    /// With the connection.
    Close,
    Ended,
}

pub struct Http1Session {
    stream: Stream,
    /// What has come and was not taken yet.
    buffer: BytesMut,
    /// Some byte of an answer has come.
    has_heard: bool,
    /// Bytes of the heads that were taken, and how many of them were informational.
    passed: usize,
    informational: u8,
    /// The final head.
    head: Option<ResponseFields>,
    framing: Framing,
    /// So far nothing shows that the connection ends with this answer.
    keep_alive: bool,
}

impl Http1Session {
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            has_heard: false,
            passed: 0,
            informational: 0,
            head: None,
            framing: Framing::Ended,
            keep_alive: false,
        }
    }

    /// Whether any byte of an answer has come: if none has, its provider may not have seen the request.
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    pub fn head(&self) -> Option<&ResponseFields> {
        self.head.as_ref()
    }

    /// Writes a request; `head` ends with the empty line. Whether all of it was written: a refusal may
    /// arrive before, and then counts. A provider that begins a good answer before it has read the request
    /// gets the rest of the request, too.
    ///
    /// # Errors
    /// The connection failed and no answer had come.
    pub async fn write(
        &mut self,
        mut head: BytesMut,
        body: &[Bytes],
    ) -> pingora_core::Result<bool> {
        let length: usize = body.iter().map(Bytes::len).sum();
        if head.len() + length <= SLICE {
            // One packet: two would wake the provider twice.
            body.iter().for_each(|piece| head.extend_from_slice(piece));
            return self.write_or_answer(&head).await;
        }
        let whole = self.write_or_answer(&head).await?;
        for slice in body.iter().flat_map(|piece| piece.chunks(SLICE)).take_while(|_| whole) {
            if !self.write_or_answer(slice).await? || self.looks_refused()? {
                return Ok(false);
            }
            tokio::task::consume_budget().await;
        }
        Ok(whole)
    }

    /// Whether a refusal is here already.
    fn looks_refused(&mut self) -> pingora_core::Result<bool> {
        use futures_util::FutureExt;
        if let Some(read) = tokio::task::unconstrained(self.read_head()).now_or_never() {
            read?;
        }
        Ok(self.is_refused())
    }

    /// Writes, or finds that the provider has refused, or has answered and closed, without reading on.
    async fn write_or_answer(&mut self, bytes: &[u8]) -> pingora_core::Result<bool> {
        let (mut rest, mut searched) = (bytes, 0);
        let written = poll_fn(|context| self.poll_write(context, &mut rest, &mut searched)).await;
        match written {
            Ok(()) => Ok(!self.is_refused()),
            Err(_) if self.answers_within(ANSWER_OF_A_CLOSED).await => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The answer is here, and none that a request is still read for.
    fn is_refused(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.status >= 300)
    }

    /// Writes `rest` while the provider takes it. While it takes nothing its answer is read: one that has refused may
    /// never read on.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        rest: &mut &[u8],
        searched: &mut usize,
    ) -> Poll<pingora_core::Result<()>> {
        loop {
            let stream = Pin::new(&mut self.stream);
            let write = match rest.is_empty() {
                true => stream.poll_flush(context).map_ok(|()| None),
                false => stream.poll_write(context, rest).map_ok(Some),
            };
            match write {
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(Some(taken @ 1..))) => *rest = &rest[taken..],
                Poll::Ready(written) => {
                    let error = written.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    let error =
                        Err(error).or_err(ErrorType::WriteError, "while writing the request");
                    return Poll::Ready(error);
                }
                Poll::Pending => break,
            }
        }
        while self.head.is_none() {
            let mut piece = [0; READ];
            let mut read = ReadBuf::new(&mut piece);
            if ready!(Pin::new(&mut self.stream).poll_read(context, &mut read)).is_err()
                || read.filled().is_empty()
            {
                return Poll::Ready(closed("before the request was written"));
            }
            self.has_heard = true;
            self.buffer.extend_from_slice(read.filled());
            self.take_head(searched)?;
            if self.is_refused() {
                return Poll::Ready(Ok(()));
            }
        }
        // What follows a good head is the answer's body, which is read when the request is written.
        Poll::Pending
    }

    async fn answers_within(&mut self, patience: std::time::Duration) -> bool {
        matches!(tokio::time::timeout(patience, self.read_head()).await, Ok(Ok(())))
    }

    /// Reads the final head: informational ones are passed over, within bounds; a switch of protocols is no answer.
    ///
    /// # Errors
    /// The connection failed, or what came is no answer.
    pub async fn read_head(&mut self) -> pingora_core::Result<()> {
        let mut searched = 0;
        loop {
            self.take_head(&mut searched)?;
            if self.head.is_some() {
                return Ok(());
            }
            if self.fill(READ).await? == 0 {
                return closed("before the head of an answer");
            }
        }
    }

    /// Takes the final head, if it is here. `searched` is how far no end of a head was found.
    fn take_head(&mut self, searched: &mut usize) -> pingora_core::Result<()> {
        while self.head.is_none() {
            let end = head::end(&self.buffer, searched);
            if self.passed + end.unwrap_or(self.buffer.len()) > LONGEST_HEAD {
                return invalid("the head of an answer is larger than 64 KiB");
            }
            let Some(end) = end else { return Ok(()) };
            *searched = 0;
            self.passed += end;
            let parsed = head::parse(self.buffer.split_to(end).freeze())?;
            self.begin_body(parsed)?;
        }
        Ok(())
    }

    /// Takes a head; an informational one ends with itself (RFC 9110, 15.2).
    fn begin_body(&mut self, parsed: Parsed) -> pingora_core::Result<()> {
        match parsed.fields.status {
            101 => return invalid("101 Switching Protocols"),
            100..=199 if self.informational == MOST_INFORMATIONAL => {
                return invalid("more than 8 informational heads before an answer");
            }
            100..=199 => {
                self.informational += 1;
                return Ok(());
            }
            _ => {}
        }
        self.framing = match parsed.framing {
            BodyEnd::Length(0) => Framing::Ended,
            BodyEnd::Length(length) => Framing::Length(length),
            BodyEnd::Chunked => Framing::Chunked(Chunks::default()),
            BodyEnd::Close => Framing::Close,
        };
        self.keep_alive = parsed.keep_alive;
        self.head = Some(parsed.fields);
        Ok(())
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection failed or ended before the body, or what came is no chunk.
    pub async fn read_body(&mut self) -> pingora_core::Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.take()? {
                return Ok(Some(bytes));
            }
            let room = match self.framing {
                Framing::Ended => return Ok(None),
                Framing::Length(left) => (left.min(LONG_READ as u64) as usize).max(READ),
                Framing::Chunked(_) | Framing::Close => READ,
            };
            if self.fill(room).await? > 0 {
                continue;
            }
            if matches!(self.framing, Framing::Close) {
                self.framing = Framing::Ended;
                return Ok(None);
            }
            return closed("before the end of the body");
        }
    }

    /// Bytes of the body that are here.
    fn take(&mut self) -> pingora_core::Result<Option<Bytes>> {
        let taken = match &mut self.framing {
            Framing::Ended => return Ok(None),
            Framing::Length(left) => {
                let here = (self.buffer.len() as u64).min(*left);
                *left -= here;
                let bytes = self.buffer.split_to(here as usize);
                if *left == 0 {
                    self.framing = Framing::Ended;
                }
                bytes
            }
            Framing::Close => self.buffer.split(),
            Framing::Chunked(chunks) => {
                let bytes = chunks.take(&mut self.buffer)?;
                if chunks.is_over() {
                    self.framing = Framing::Ended;
                }
                bytes
            }
        };
        Ok((!taken.is_empty()).then(|| taken.freeze()))
    }

    /// Whether the body has ended.
    pub fn is_ended(&self) -> bool {
        self.head.is_some() && matches!(self.framing, Framing::Ended)
    }

    async fn fill(&mut self, room: usize) -> pingora_core::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < room / 2 {
            self.buffer.reserve(room);
        }
        let read = self.stream.read_buf(&mut self.buffer).await;
        let read = read.or_err(ErrorType::ReadError, "while reading the answer")?;
        self.has_heard |= read > 0;
        Ok(read)
    }

    /// Whether another request may follow once the answer is read to its end.
    pub fn is_kept(&self) -> bool {
        self.keep_alive
    }

    /// Whether another request may follow: the answer was read to its end and nothing is behind it.
    pub fn is_reusable(&self) -> bool {
        self.is_ended() && self.keep_alive && self.buffer.is_empty()
    }

    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Closes the connection; TLS has a last word.
    pub async fn shutdown(&mut self) {
        let _ = self.stream.shutdown().await;
    }
}

/// How long after a write failed the answer may come that explains it.
const ANSWER_OF_A_CLOSED: std::time::Duration = std::time::Duration::from_secs(1);

fn closed<T>(when: &str) -> pingora_core::Result<T> {
    let why = format!("the connection was closed {when}");
    Error::e_explain(ErrorType::ConnectionClosed, why)
}
