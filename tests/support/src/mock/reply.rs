//! One answer of the provider, faults included.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::sse;

/// What the provider does, one thing after the other.
#[derive(Clone, Debug)]
pub enum Step {
    /// One write; in a chunked answer, one chunk.
    Write(Bytes),
    /// The same, one byte a write.
    Bytewise(Bytes),
    Wait(Duration),
    /// Waits until the test opens the gate.
    Gate(Gate),
    /// Closes with RST.
    Reset,
    /// HTTP/2: `REFUSED_STREAM`. Else as [`Step::Reset`].
    Refuse,
    /// HTTP/2: `GOAWAY`; streams that have begun go on. Else nothing.
    GoAway,
    /// Closes without a word.
    Close,
    /// Silent until the other side leaves.
    Hang,
    /// The same bytes for ever.
    Endless(Bytes, Duration),
}

/// Closed at first; opened by the test, for good.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>, Arc<AtomicUsize>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)), Arc::default())
    }

    pub fn open(&self) {
        self.0.add_permits(1_000_000);
    }

    /// How many wait in front of it.
    pub fn waiting(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.1.fetch_add(1, Ordering::SeqCst);
        let _waits = Waits(&self.1);
        let _permit = self.0.acquire().await.expect("a gate is never taken away");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    Length,
    Chunked,
    /// The end of the connection is the end of the body.
    UntilClose,
}

/// One answer, faults included.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) before_head: Vec<Step>,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) framing: Framing,
    /// Content-Length when it lies.
    pub(super) length: Option<usize>,
    pub(super) body: Vec<Step>,
    /// Answers before it has read the request's body.
    pub(super) early: bool,
    /// Reads nothing behind the head of the request, ever.
    pub(super) deaf: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            before_head: Vec::new(),
            status,
            headers: Vec::new(),
            framing: Framing::Length,
            length: None,
            body: Vec::new(),
            early: false,
            deaf: false,
        }
    }

    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::status(status).header("content-type", "application/json").write(body)
    }

    /// A provider's error in its usual envelope.
    pub fn error(status: u16) -> Self {
        let body = format!(
            "{{\"error\":{{\"message\":\"The provider says {status} (sk-SECRETprovider)\",\
             \"type\":\"provider_error\",\"param\":null,\"code\":\"provider_{status}\"}}}}"
        );
        Self::json(status, body)
    }

    /// A whole chat answer.
    pub fn chat() -> Self {
        Self::json(200, sse::CHAT)
    }

    pub fn sse<T: Into<Bytes> + Clone>(events: &[T]) -> Self {
        let mut reply = Self::status(200).header("content-type", "text/event-stream");
        reply.framing = Framing::Chunked;
        reply.body.extend(events.iter().cloned().map(|event| Step::Write(event.into())));
        reply
    }

    /// A whole chat stream, usage chunk included.
    pub fn stream() -> Self {
        Self::sse(&sse::with_usage(&["Hel", "lo"]))
    }

    /// No answer at all, but these steps.
    pub fn instead(steps: impl Into<Vec<Step>>) -> Self {
        let mut reply = Self::status(200);
        reply.before_head = steps.into();
        reply
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn before_head(mut self, step: Step) -> Self {
        self.before_head.push(step);
        self
    }

    /// An interim answer, such as 103.
    pub fn interim(self, status: u16) -> Self {
        let head = format!("HTTP/1.1 {status} Interim\r\nlink: </x>; rel=preload\r\n\r\n");
        self.before_head(Step::Write(head.into()))
    }

    pub fn write(self, bytes: impl Into<Bytes>) -> Self {
        self.then(Step::Write(bytes.into()))
    }

    pub fn then(mut self, step: Step) -> Self {
        self.body.push(step);
        self
    }

    /// Every write becomes one write a byte.
    pub fn bytewise(mut self) -> Self {
        for step in &mut self.body {
            if let Step::Write(bytes) = step {
                *step = Step::Bytewise(bytes.clone());
            }
        }
        self
    }

    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// Says `length` and closes after what it really has.
    pub fn lying_length(mut self, length: usize) -> Self {
        self.length = Some(length);
        self.then(Step::Close)
    }

    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// Answers without reading the request's body, and stays.
    pub fn deaf(mut self) -> Self {
        self.deaf = true;
        self.early()
    }

    /// What it says, be it a lie.
    pub(super) fn content_length(&self) -> usize {
        self.length.unwrap_or_else(|| self.body.iter().map(size).sum())
    }

    pub(super) fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Mock\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.framing {
            Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
            Framing::UntilClose => head.push_str("connection: close\r\n"),
            Framing::Length => {
                head.push_str(&format!("content-length: {}\r\n", self.content_length()));
            }
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub(super) fn closes(&self) -> bool {
        self.framing == Framing::UntilClose
            || self.headers.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
            })
    }
}

fn size(step: &Step) -> usize {
    match step {
        Step::Write(bytes) | Step::Bytewise(bytes) => bytes.len(),
        _ => 0,
    }
}
