//! The events of one stream: what they say, and the bytes of those that go to the app.

use bytes::{Bytes, BytesMut};
use gatekeeper_filters::{
    kernel::Endpoint,
    meter::{
        Reading, Stream,
        sse::{Event, Splitter},
    },
};

use super::translate;

pub struct Events {
    splitter: Splitter,
    /// The provider's.
    endpoint: Endpoint,
    stream: Stream,
    /// Where the app speaks another dialect.
    translation: Option<Box<translate::stream::Stream>>,
    /// The app asked for the usage chunk itself.
    wants_usage: bool,
    /// Bytes for the app that were not written yet.
    pub out: Outgoing,
    /// Some event carried output.
    pub commits: bool,
    /// The answer said that it is finished.
    finished: bool,
    /// Nothing that counts can follow.
    pub complete: bool,
    broken: Option<Broken>,
}

/// Why a stream can't go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The provider said so, in this event. Its words may name the seller's account: the app gets ours.
    Told(Bytes),
    /// It was seen here.
    Seen(String),
    /// The connection broke.
    Cut(String),
}

impl Events {
    pub fn new(endpoint: Endpoint, wants_usage: bool) -> Self {
        Self {
            splitter: Splitter::default(),
            endpoint,
            stream: Stream::of(endpoint),
            translation: None,
            wants_usage,
            out: Outgoing::default(),
            commits: false,
            finished: false,
            complete: false,
            broken: None,
        }
    }

    /// The same for an app of OpenAI's chat; `created` in Unix seconds.
    #[must_use]
    pub fn translated(mut self, created: u64) -> Self {
        let stream = translate::stream::Stream::new(self.wants_usage, created);
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

    /// The provider's bytes have come to their end.
    pub fn end(&mut self, mut watch: impl FnMut(&Reading)) {
        if !self.is_over()
            && let Some(event) = self.splitter.finish()
        {
            self.read(event, &mut watch);
        }
        // Anthropic's SDKs take no message for whole that was not stopped.
        let needs_stop = self.endpoint == Endpoint::Messages;
        if !self.complete && (needs_stop || !self.finished) {
            self.fail("the stream ended before the answer was finished");
        }
        self.complete = true;
    }

    /// The stream broke; the first reason counts.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.broken.get_or_insert_with(|| Broken::Seen(why.into()));
    }

    /// The connection broke; the first reason counts.
    pub fn cut(&mut self, why: impl Into<String>) {
        self.broken.get_or_insert_with(|| Broken::Cut(why.into()));
    }

    /// Why the stream can't go on, if it can't.
    pub fn broken(&mut self) -> Option<Broken> {
        if self.complete && !self.commits {
            self.fail("the stream held no answer");
        }
        self.broken.take()
    }

    /// The answer said that it is finished; more events may follow.
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
            // A beat of the provider's own; in another dialect it could be anything.
            if event.complete && self.translation.is_none() {
                self.out.push(event.raw);
            }
            return;
        };
        let reading = self.stream.read(event.name(), data);
        watch(&reading);
        if reading.failed {
            self.broken.get_or_insert(Broken::Told(Bytes::copy_from_slice(data)));
            return;
        }
        if reading.malformed {
            // Torn by the end of the stream, or after all that counts, it is left out; the end says the rest.
            if event.complete && !self.finished {
                self.fail("an event that is not JSON");
            }
            return;
        }
        self.commits |= reading.commits;
        self.finished |= reading.finished;
        self.complete |= reading.done;
        // A stream of responses has no end marker: its last event is the one that says so.
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

/// Bytes that go out with the next write. One event by itself, as in a stream of ordinary pace, is
/// passed on without a copy.
#[derive(Default)]
pub struct Outgoing {
    first: Bytes,
    rest: BytesMut,
}

impl Outgoing {
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
    fn run(endpoint: Endpoint, wants_usage: bool, chunks: &[&str]) -> (String, Option<Broken>) {
        let mut events = Events::new(endpoint, wants_usage);
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
        assert!(run(Endpoint::Chat, false, &[TEXT, STOP]).1.is_none());
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
        assert_eq!(broken, Some(Broken::Seen("an event that is not JSON".into())));
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
        assert!(run(Endpoint::Chat, false, &[]).1.is_some());
    }
}
