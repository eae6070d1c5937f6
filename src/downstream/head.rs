//! The head of an HTTP/1.1 request, read until it is whole.
//!
//! The parser below looks at a head anew with every piece of it that comes, takes up to 1 MiB, and has no clock
//! for the whole. So it gets heads whole: they are looked at once here, however they trickle.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{
    connection::ClientConnection,
    connections::Connections,
    framing::{self, Framing},
    stream::Watched,
};

/// Bytes of a head, to the end of its empty line; as many as HTTP/2 has.
pub const LONGEST: usize = 64 * 1024;
/// What one read takes. Nearly all requests come in one.
const PIECE: usize = 16 * 1024;

thread_local! {
    /// Where bytes are put before it is known that there are any: an idle connection has no buffer of its own.
    static PIECE_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// What has come.
pub struct Head {
    /// The head, and what came of the body.
    pub bytes: BytesMut,
    /// Where the head ends in it.
    pub end: usize,
    pub framing: Framing,
}

/// Why there is no head.
#[derive(Debug)]
pub enum NoHead {
    /// The client is gone, or silent for too long, or was told to close: no answer is sent.
    Gone,
    /// The refusal, with the bytes received.
    Refused(Bad, BytesMut),
}

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Above [`LONGEST`].
    TooLong,
    /// Too many heads are being read concurrently.
    TooMany,
    Malformed(&'static str),
    /// Rejected by the parser, with this status.
    Unparsed(u16),
}

/// How long one may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// To its first byte.
    pub idle: Duration,
    /// From its first byte, or from a connection's beginning, to its end.
    pub head: Duration,
}

/// Reads on `stream` to the end of a head; what came behind the last request comes first.
///
/// # Errors
/// Why there is none.
pub async fn read(
    stream: &mut Watched,
    connection: &ClientConnection,
    all: &Connections,
    times: Times,
) -> Result<Head, NoHead> {
    let mut bytes = stream.take_ahead();
    if bytes.is_empty() {
        let first = connection.unless_told(Some(times.idle), first_piece(stream)).await;
        bytes = first.and_then(Result::ok).ok_or(NoHead::Gone)?;
    }
    let mut looked_at = 0;
    let mut share = None;
    let mut deadline = None;
    loop {
        if bytes.is_empty() {
            return Err(NoHead::Gone);
        }
        if let Some(end) = end_of(&bytes, looked_at) {
            if end > LONGEST {
                return Err(NoHead::Refused(Bad::TooLong, bytes));
            }
            return match framing::check(&bytes[..end]) {
                Ok(framing) => Ok(Head { bytes, end, framing }),
                Err(why) => Err(NoHead::Refused(Bad::Malformed(why), bytes)),
            };
        }
        if bytes.len() > LONGEST {
            return Err(NoHead::Refused(Bad::TooLong, bytes));
        }
        let is_bare = || memchr::memmem::find(&bytes[looked_at..], b"\n\n").is_some();
        if matches!(bytes[0], b'\r' | b'\n') || is_bare() {
            // No head ends otherwise, and then it would be waited for.
            return Err(NoHead::Refused(Bad::Malformed("a bare line feed"), bytes));
        }
        looked_at = bytes.len().saturating_sub(2);
        let share = share.get_or_insert_with(|| all.head_share());
        if !share.grow(bytes.len()) {
            return Err(NoHead::Refused(Bad::TooMany, bytes));
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + times.head);
        let left = deadline.saturating_duration_since(Instant::now());
        // Doubling, so that the whole is moved a few times only, and never far above the limit.
        bytes.reserve(bytes.len().clamp(1024, PIECE));
        let piece = connection.unless_told(Some(left), stream.read_buf(&mut bytes)).await;
        match piece {
            Some(Ok(count)) if count > 0 => {}
            _ => return Err(NoHead::Gone),
        }
    }
}

/// Where a head ends in these bytes, if they hold its end; before `from` there is none.
fn end_of(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(&bytes[from..], b"\n\r\n").map(|at| from + at + 3)
}

/// What one read brings; nothing is held until there is something.
async fn first_piece(stream: &mut Watched) -> io::Result<BytesMut> {
    poll_fn(|context| {
        PIECE_BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            Poll::Ready(Ok(BytesMut::from(read.filled())))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_wherever_the_pieces_part() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nbody\n\r\n";
        let end = 27;
        for cut in 1..head.len() {
            let first = end_of(&head[..cut], 0);
            assert_eq!(first.is_some(), cut >= end, "{cut}");
            if first.is_none() {
                assert_eq!(end_of(head, cut.saturating_sub(2)), Some(end), "{cut}");
            }
        }
    }
}
