//! The events of one stream: their readings, and the bytes of those that go to the app.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gatekeeper_filters::{
    kernel::Endpoint,
    meter::{
        Reading, StreamReader,
        sse::{Event, Splitter},
    },
};

use self::conclusion::Conclusion;
use super::classify;
use crate::dialect::translate;

mod conclusion;

pub struct StreamEvents {
    splitter: Splitter,
    /// The provider's.
    endpoint: Endpoint,
    stream: StreamReader,
    /// Where the app uses another dialect.
    translation: Option<Box<translate::stream::StreamTranslator>>,
    /// The app asked for the usage chunk itself.
    wants_usage: bool,
    /// Bytes for the app that were not written yet.
    pub out: WriteBuffer,
    /// Some event carried output.
    pub commits: bool,
    /// The answer was marked as finished.
    finished: bool,
    conclusion: Conclusion,
    /// An answer without output is handed on like any other.
    takes_hollow: bool,
    /// The declared type of the body is not an event stream.
    odd_type: bool,
    /// Nothing that counts can follow.
    pub complete: bool,
    broken: Option<StreamError>,
}

/// Why a stream can't go on.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamError {
    /// Reported by the provider, in this event. Its text may name the seller's account: the app gets the
    /// gateway's.
    Told(Bytes),
    /// It was seen here.
    Seen(String),
    /// The connection broke.
    Cut(String),
    /// It ended properly without content.
    Hollow,
}

impl StreamEvents {
    pub fn new(endpoint: Endpoint, wants_usage: bool) -> Self {
        Self {
            splitter: Splitter::default(),
            endpoint,
            stream: StreamReader::of(endpoint),
            translation: None,
            wants_usage,
            out: WriteBuffer::default(),
            commits: false,
            finished: false,
            conclusion: Conclusion::default(),
            takes_hollow: false,
            odd_type: false,
            complete: false,
            broken: None,
        }
    }

    /// Whether an answer without output is an answer.
    #[must_use]
    pub fn taking_hollow(mut self, takes: bool) -> Self {
        self.takes_hollow = takes;
        self
    }

    /// Whether the body may be no stream of events at all: then all of it has to look like one.
    #[must_use]
    pub fn of_odd_type(mut self, odd: bool) -> Self {
        self.odd_type = odd;
        self
    }

    /// The same for an app of OpenAI's chat; `created` in Unix seconds.
    #[must_use]
    pub fn translated(mut self, created: u64) -> Self {
        let stream = translate::stream::StreamTranslator::new(self.wants_usage, created);
        self.translation = Some(Box::new(stream));
        self
    }

    /// Reads the events that end in `chunk`, up to the last that counts.
    pub fn take(&mut self, chunk: Bytes, mut watch: impl FnMut(&Reading)) {
        self.splitter.push(chunk);
        while !self.is_over() {
            match self.splitter.next() {
                Some(Ok(event)) => self.read(event, &mut watch),
                Some(Err(error)) => self.fail(error.to_string()),
                None => return,
            }
        }
    }

    /// The provider's body has ended.
    pub fn end(&mut self, mut watch: impl FnMut(&Reading)) {
        if !self.is_over()
            && let Some(event) = self.splitter.finish()
        {
            self.read(event, &mut watch);
        }
        if self.conclude() {
            return;
        }
        // Anthropic's SDKs take no message for whole that was not stopped.
        let needs_stop = self.endpoint == Endpoint::Messages;
        if !self.complete && (needs_stop || !self.finished) {
            self.fail("the stream ended before the answer was finished");
        }
        self.complete = true;
    }

    /// The stream broke; the first reason counts. What breaks behind the end of an answer is none.
    pub fn fail(&mut self, why: impl Into<String>) {
        if !self.conclude() {
            self.broken.get_or_insert_with(|| StreamError::Seen(why.into()));
        }
    }

    /// The connection broke; the same holds.
    pub fn cut(&mut self, why: impl Into<String>) {
        if !self.conclude() {
            self.broken.get_or_insert_with(|| StreamError::Cut(why.into()));
        }
    }

    /// Ends a finished answer as its end marker would, which the app gets from here. Whether it has ended,
    /// now or before.
    pub fn conclude(&mut self) -> bool {
        if self.complete || self.broken.is_some() || !self.conclusion.holds() {
            return self.complete && self.broken.is_none();
        }
        self.complete = true;
        let (name, data, event): (_, &[u8], &'static [u8]) = match self.endpoint {
            Endpoint::Chat | Endpoint::Embeddings => (None, b"[DONE]", b"data: [DONE]\n\n"),
            Endpoint::Messages => {
                (Some("message_stop"), br#"{"type":"message_stop"}"#, MESSAGE_STOP)
            }
            Endpoint::Responses | Endpoint::Generate => return true,
        };
        let stop = Reading { done: true, ..Reading::default() };
        self.out.push(match &mut self.translation {
            Some(translation) => translation.event(name, data, &stop),
            None => Bytes::from_static(event),
        });
        true
    }

    /// How much longer a provider may be silent, now that its answer seems to have ended; `None` while it has not.
    pub fn patience(&self) -> Option<Duration> {
        self.conclusion.patience()
    }

    /// Whether an event came since this was asked last; comments are none.
    pub fn take_stirred(&mut self) -> bool {
        self.conclusion.take_stirred()
    }

    /// Why the stream can't go on, if it can't.
    pub fn broken(&mut self) -> Option<StreamError> {
        if self.complete && !self.commits && self.broken.is_none() {
            match (self.finished, self.conclusion.is_hollow() && !self.takes_hollow) {
                (true, false) => self.commits = true,
                (true, true) => self.broken = Some(StreamError::Hollow),
                (false, _) => {
                    self.broken = Some(StreamError::Seen("the stream held no answer".into()))
                }
            }
        }
        self.broken.take()
    }

    /// The answer was marked as finished; more events may follow.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Bytes that are kept here: those for the app, and those of an event that has not ended.
    pub fn held(&self) -> usize {
        self.out.len() + self.splitter.pending()
    }

    pub fn is_over(&self) -> bool {
        self.complete || self.broken.is_some()
    }

    fn read(&mut self, event: Event, watch: &mut impl FnMut(&Reading)) {
        let Some(data) = event.data() else {
            if self.odd_type && !is_stream_field(&event.raw) {
                // Some providers report errors with such a type.
                if classify::says_error(&event.raw) {
                    self.broken.get_or_insert(StreamError::Told(event.raw));
                } else {
                    self.fail(NO_EVENTS);
                }
                return;
            }
            // A beat of the provider's own; in another dialect it could be anything.
            if event.complete && self.translation.is_none() {
                self.out.push(event.raw);
            }
            return;
        };
        let reading = self.stream.read(event.name(), data);
        watch(&reading);
        if reading.failed {
            if self.conclude() {
                return;
            }
            self.broken.get_or_insert(StreamError::Told(Bytes::copy_from_slice(data)));
            return;
        }
        if reading.malformed {
            // An event torn by the end of the stream, or after the finished answer, is dropped; the end of
            // the stream is handled separately.
            if event.complete && !self.finished {
                self.fail("an event that is not JSON");
            }
            return;
        }
        self.conclusion.take(&reading);
        // A finish alone may belong to an empty answer: the commit waits until that is decided.
        self.commits |= reading.commits && !self.conclusion.may_be_hollow();
        self.finished |= reading.finished;
        self.complete |= reading.done;
        // A stream of responses has no end marker: its last event marks the end.
        self.complete |= reading.finished && self.endpoint == Endpoint::Responses;
        let cut_off = !event.complete && !reading.done && !reading.finished;
        if cut_off {
            return;
        }
        if let Some(translation) = &mut self.translation {
            let chunks = translation.event(event.name(), data, &reading);
            if !chunks.is_empty() {
                self.out.push(chunks);
            }
        } else if self.wants_usage || !reading.usage_only || self.endpoint != Endpoint::Chat {
            self.out.push(event.raw);
        }
    }
}

pub const NO_EVENTS: &str = "no events though a stream was asked for";

const MESSAGE_STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Whether lines without data can be a stream's: a comment, a field beside the data, blank lines.
fn is_stream_field(raw: &[u8]) -> bool {
    let line = raw.trim_ascii_start();
    let begins = |field: &&[u8]| line.starts_with(field);
    line.is_empty() || [&b":"[..], b"event", b"id", b"retry"].iter().any(begins)
}

/// Bytes that go out with the next write. One event by itself, as in a stream of ordinary pace, is
/// passed on without a copy.
#[derive(Default)]
pub struct WriteBuffer {
    first: Bytes,
    rest: BytesMut,
}

impl WriteBuffer {
    pub fn push(&mut self, bytes: Bytes) {
        if self.is_empty() {
            self.first = bytes;
            return;
        }
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&bytes);
    }

    pub fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn take(&mut self) -> Bytes {
        if self.rest.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            std::mem::take(&mut self.rest).freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `chunks` and the end; what goes to the app, and why it broke.
    fn run(
        endpoint: Endpoint,
        wants_usage: bool,
        chunks: &[&str],
    ) -> (String, Option<StreamError>) {
        let mut events = StreamEvents::new(endpoint, wants_usage);
        for chunk in chunks {
            events.take(Bytes::copy_from_slice(chunk.as_bytes()), |_| {});
        }
        if !events.is_over() {
            events.end(|_| {});
        }
        let broken = events.broken();
        (String::from_utf8(events.out.take().to_vec()).unwrap(), broken)
    }

    const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const USAGE: &str =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
    const ERROR: &str = "data: {\"error\":{\"message\":\"org-1\"}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    #[test]
    fn the_usage_chunk_goes_only_to_apps_that_asked() {
        let whole = [TEXT, STOP, USAGE, DONE].concat();
        let (out, broken) = run(Endpoint::Chat, false, &[&whole]);
        assert_eq!((out, broken), ([TEXT, STOP, DONE].concat(), None));
        assert_eq!(run(Endpoint::Chat, true, &[&whole]).0, whole);
        let split = whole.split_at(whole.len() - 40);
        assert_eq!(run(Endpoint::Chat, false, &[split.0, split.1]).0, [TEXT, STOP, DONE].concat());
    }

    #[test]
    fn nothing_follows_an_error_and_its_words_stay_here() {
        let (out, broken) = run(Endpoint::Chat, false, &[&[TEXT, ERROR, DONE].concat()]);
        assert_eq!(out, TEXT);
        assert!(broken.is_some());
    }

    #[test]
    fn a_stream_that_ends_early_is_broken_and_its_torn_event_is_dropped() {
        let (out, broken) = run(Endpoint::Chat, false, &[TEXT, "data: {\"choi"]);
        assert_eq!(out, TEXT);
        assert!(broken.is_some());
        assert_eq!(run(Endpoint::Chat, false, &[TEXT, STOP]), ([TEXT, STOP, DONE].concat(), None));
        let (out, broken) = run(Endpoint::Chat, false, &[TEXT, STOP, "data: [DONE]"]);
        assert!(broken.is_none() && out.ends_with("data: [DONE]"));
    }

    #[test]
    fn an_event_that_no_sdk_could_read_breaks_an_answer_but_not_a_finished_one() {
        let torn = "data: {\"choices\":[{\"del\n\n";
        for endpoint in
            [Endpoint::Chat, Endpoint::Responses, Endpoint::Messages, Endpoint::Generate]
        {
            assert!(run(endpoint, false, &[torn]).1.is_some(), "{endpoint:?}");
        }
        let (out, broken) = run(Endpoint::Chat, false, &[TEXT, torn, STOP, DONE]);
        assert_eq!(out, TEXT);
        assert_eq!(broken, Some(StreamError::Seen("an event that is not JSON".into())));
        let (out, broken) = run(Endpoint::Chat, false, &[TEXT, STOP, torn, DONE]);
        assert_eq!((out, broken), ([TEXT, STOP, DONE].concat(), None));
        let beat = "data:\n\n";
        assert_eq!(run(Endpoint::Chat, false, &[TEXT, beat, STOP, DONE]).1, None);
    }

    #[test]
    fn a_stream_without_output_is_no_answer() {
        let role =
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        assert!(run(Endpoint::Chat, false, &[role, DONE]).1.is_some());
        assert!(run(Endpoint::Chat, false, &[DONE]).1.is_some());
        assert!(run(Endpoint::Chat, false, &[USAGE, DONE]).1.is_some());
        assert!(run(Endpoint::Chat, false, &[]).1.is_some());
    }

    /// Some servers say no finish reason.
    #[test]
    fn the_end_marker_alone_ends_an_answer() {
        assert_eq!(run(Endpoint::Chat, false, &[TEXT, DONE]), ([TEXT, DONE].concat(), None));
    }
}
