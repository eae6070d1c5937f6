//! What holds of any bytes that come from a provider. Each function takes an input of a fuzzer and panics where
//! something does not hold; `tests/fuzz` has the fuzzers, and their corpora are tests here.

use bytes::Bytes;

use super::{
    StreamReader, answer,
    openai::chat_event,
    sse::{Event, MAX_EVENT, Splitter},
};
use crate::kernel::{Endpoint, Vocabulary};

/// The events of a stream that comes in these pieces; `None` where one is too long.
fn events(pieces: &[&[u8]]) -> Option<Vec<Event>> {
    let mut splitter = Splitter::default();
    let mut events = Vec::new();
    for piece in pieces {
        splitter.push(Bytes::copy_from_slice(piece));
        for event in splitter.by_ref() {
            events.push(event.ok()?);
        }
    }
    events.extend(splitter.finish());
    Some(events)
}

/// The first byte gives the position at which the rest, a stream, is split.
fn cut(input: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let Some((&first, stream)) = input.split_first() else { return (Vec::new(), input) };
    (stream.chunks(usize::from(first).max(1)).collect(), stream)
}

/// However a stream was cut on its way, its events are the same, and all of its bytes are in them.
pub fn sse(input: &[u8]) {
    let (pieces, stream) = cut(input);
    if stream.len() > MAX_EVENT {
        return;
    }
    let told = |events: &[Event]| -> Vec<_> {
        let data = |event: &Event| event.data().map(<[u8]>::to_vec);
        events
            .iter()
            .map(|e| (e.raw.to_vec(), e.name().map(str::to_owned), data(e), e.complete))
            .collect()
    };
    let (Some(whole), Some(pieces)) = (events(&[stream]), events(&pieces)) else {
        panic!("an event is too long in a short stream");
    };
    assert_eq!(told(&whole), told(&pieces), "a cut changes the events");
    let joined: Vec<u8> = whole.iter().flat_map(|event| event.raw.to_vec()).collect();
    assert_eq!(joined, stream, "bytes are lost");
    assert!(whole.iter().rev().skip(1).all(|event| event.complete), "only the last may be torn");
}

/// The first byte chooses an endpoint; the rest is read as a stream of it, and as a whole answer.
pub fn usage(input: &[u8]) {
    let Some((&first, body)) = input.split_first() else { return };
    let endpoint = Endpoint::ALL[usize::from(first) % Endpoint::ALL.len()];
    let mut stream = StreamReader::of(endpoint);
    for event in events(&[body]).unwrap_or_default() {
        let Some(data) = event.data() else { continue };
        let reading = stream.read(event.name(), data);
        check(&reading, data);
        if endpoint == Endpoint::Chat {
            assert_eq!(reading, chat_event(data), "a chunk that is like others reads otherwise");
        }
    }
    if let Ok(reading) = answer(endpoint, body) {
        check(&reading, body);
    }
}

fn check(reading: &super::Reading, data: &[u8]) {
    for usage in [reading.usage, reading.input].into_iter().flatten() {
        for count in [usage.input, usage.output, usage.cached, usage.reasoning] {
            // Three counts of 2^53 may be added up.
            assert!(count < 1 << 55, "no provider counted {count} tokens");
        }
        assert!(usage.reasoning <= usage.output, "reasoning is output");
        assert!(usage.total() >= usage.input, "a total that wrapped around");
    }
    assert!(!(reading.failed && reading.commits), "a failure is no output");
    assert!(!reading.malformed || !reading.commits, "what cannot be read is no output");
    // A byte of text is at most some two tokens.
    let most = 3 * (data.len() as u64 + 1);
    assert!(
        reading.output_millitokens.tokens(Vocabulary::Unknown) <= most,
        "more tokens than bytes"
    );
}

#[cfg(test)]
#[path = "../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{replay::replay, *};

    #[test]
    fn the_corpus_of_streams_holds() {
        replay("sse", sse);
    }

    #[test]
    fn the_corpus_of_usage_holds() {
        replay("usage", usage);
    }
}
