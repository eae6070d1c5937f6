//! Server-sent events as the WHATWG specification reads them, however the bytes were split.
//!
//! The relay sends on what the provider sent: every event carries its exact bytes, blank line
//! included, so that whole events can be left out and the rest stays as it was. The bytes of all
//! events, one after the other, and what [`Splitter::finish`] returns are the input.
//!
//! Line ends are LF, CR LF or CR. Where a read ends in the CR of a blank line, the event waits for the
//! next byte, because a LF would still belong to it; a stream of bare CRs is therefore one event late,
//! never wrong.

#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// The longest event, in bytes: a picture in one piece fits. Longer ones are a provider's nonsense, or an attack on memory.
pub const MAX_EVENT: usize = 8 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An event was longer than [`MAX_EVENT`]. The stream can't be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than 8 MiB")]
pub struct TooLong;

/// One block of lines up to its blank line. Comments, or a blank line alone, make an event without
/// data.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its exact bytes, the blank line included.
    pub raw: Bytes,
    /// Whether the blank line was there; only [`Splitter::finish`] returns events without.
    pub complete: bool,
    name: Option<Range<usize>>,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    None,
    Line(Range<usize>),
    Joined(Vec<u8>),
}

impl Event {
    /// The contents of the `data` lines, joined by LF; `None` if there are none. An empty `data` line
    /// counts as data.
    pub fn data(&self) -> Option<&[u8]> {
        match &self.data {
            Data::None => None,
            Data::Line(span) => self.raw.get(span.clone()),
            Data::Joined(bytes) => Some(bytes),
        }
    }

    /// The last `event` line; `None` for the default type, `message`.
    pub fn name(&self) -> Option<&str> {
        let name = self.raw.get(self.name.clone()?)?;
        std::str::from_utf8(name).ok().filter(|name| !name.is_empty())
    }

    fn read(raw: Bytes, start: usize, complete: bool) -> Self {
        let mut name = None;
        let mut data = Data::None;
        let mut at = start;
        while at < raw.len() {
            let line = memchr2(b'\n', b'\r', &raw[at..]).map_or(at..raw.len(), |end| at..at + end);
            at = line.end + 1;
            let Some((field, value)) = split_field(&raw, line) else { continue };
            match field {
                b"data" => data.add(&raw, value),
                b"event" => name = Some(value),
                _ => {}
            }
        }
        Self { raw, complete, name, data }
    }
}

impl Data {
    fn add(&mut self, raw: &[u8], line: Range<usize>) {
        match self {
            Data::None => *self = Data::Line(line),
            Data::Line(first) => {
                *self = Data::Joined([&raw[first.clone()], b"\n", &raw[line]].concat());
            }
            Data::Joined(bytes) => {
                bytes.push(b'\n');
                bytes.extend_from_slice(&raw[line]);
            }
        }
    }
}

/// A line's field name and where its value stands; `None` for comments and blank lines. The LF of a
/// CR LF counts as one more blank line, which changes nothing.
fn split_field(raw: &[u8], line: Range<usize>) -> Option<(&[u8], Range<usize>)> {
    let bytes = &raw[line.clone()];
    let Some(colon) = memchr(b':', bytes) else {
        return (!bytes.is_empty()).then_some((bytes, line.end..line.end));
    };
    let space = usize::from(bytes.get(colon + 1) == Some(&b' '));
    (colon > 0).then_some((&bytes[..colon], line.start + colon + 1 + space..line.end))
}

/// Splits a stream into events: push what was read, then iterate until there are none; then push
/// again.
///
/// An event within one read shares that read's memory; only one that spans reads is copied, once.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The start of an event whose end was not in its read.
    pending: BytesMut,
    chunk: Bytes,
    /// Bytes of `chunk` that were looked at.
    scanned: usize,
    line: Line,
    /// The first three bytes were looked at: a byte order mark can no longer come.
    begun: bool,
    /// The stream began with a byte order mark, and its first event was not handed out yet.
    marked: bool,
    failed: bool,
}

/// What the scanner knows about the line it is in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Open,
    /// Ended by a CR, perhaps followed by a LF.
    AfterCr,
    /// The same, and the line was empty.
    AfterBlankCr,
}

impl Splitter {
    /// Hands over the next bytes. Take all events of one read before the next: what is left over is
    /// copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.chunk = [&self.chunk[..], &chunk].concat().into();
        }
    }

    /// The bytes that are no complete event, as one event; `None` if there are none. Call it at the
    /// end of the stream, after the last event was taken.
    ///
    /// By the specification an event without its blank line is dropped. It is the relay that
    /// judges: some providers end in `data: [DONE]` and nothing more.
    pub fn finish(&mut self) -> Option<Event> {
        let complete = self.line == Line::AfterBlankCr;
        self.keep_rest();
        self.line = Line::Empty;
        let raw = self.pending.split().freeze();
        (!raw.is_empty()).then(|| self.event(raw, complete))
    }

    /// Bytes kept of an event that has not ended.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn keep_rest(&mut self) {
        self.pending.extend_from_slice(&self.chunk);
        self.chunk = Bytes::new();
        self.scanned = 0;
    }

    fn event(&mut self, raw: Bytes, complete: bool) -> Event {
        let marked = std::mem::take(&mut self.marked);
        Event::read(raw, if marked { BYTE_ORDER_MARK.len() } else { 0 }, complete)
    }

    /// Whether enough of the stream has arrived to decide if it begins with a byte order mark.
    fn begin(&mut self) -> bool {
        if !self.begun && BYTE_ORDER_MARK.starts_with(&self.chunk) && self.chunk.len() < 3 {
            return false;
        }
        if !self.begun && self.chunk.starts_with(BYTE_ORDER_MARK) {
            self.marked = true;
            self.scanned = BYTE_ORDER_MARK.len();
        }
        self.begun = true;
        true
    }

    /// Looks on for the end of the event: how many bytes of `chunk` belong to it.
    fn scan(&mut self) -> Option<usize> {
        loop {
            let rest = self.chunk.get(self.scanned..)?;
            let first = *rest.first()?;
            let (used, line) = match (self.line, first) {
                (Line::AfterCr | Line::AfterBlankCr, b'\n') => (1, Line::Empty),
                (Line::AfterCr | Line::AfterBlankCr, _) => (0, Line::Empty),
                (Line::Empty, b'\n') => (1, Line::Empty),
                (Line::Empty, b'\r') => (1, Line::AfterBlankCr),
                _ => match memchr2(b'\n', b'\r', rest) {
                    Some(end) if rest[end] == b'\n' => (end + 1, Line::Empty),
                    Some(end) => (end + 1, Line::AfterCr),
                    None => (rest.len(), Line::Open),
                },
            };
            let blank = match self.line {
                Line::AfterBlankCr => true,
                Line::Empty => first == b'\n',
                Line::Open | Line::AfterCr => false,
            };
            self.scanned += used;
            self.line = line;
            if blank {
                return Some(self.scanned);
            }
        }
    }
}

/// Not fused: after `None` the next [`Splitter::push`] may bring more. An error is returned once.
impl Iterator for Splitter {
    type Item = Result<Event, TooLong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || !self.begin() {
            return None;
        }
        let end = self.scan();
        if self.pending.len() + end.unwrap_or(self.chunk.len()) > MAX_EVENT {
            self.failed = true;
            return Some(Err(TooLong));
        }
        let Some(end) = end else {
            self.keep_rest();
            return None;
        };
        self.scanned = 0;
        let mut raw = self.chunk.split_to(end);
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(&raw);
            raw = self.pending.split().freeze();
        }
        Some(Ok(self.event(raw, true)))
    }
}
