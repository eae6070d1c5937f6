//! Streams of Anthropic and Gemini are read the same however their bytes come.

mod booked;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{Reading, StreamReader, estimate::Estimate, sse::Splitter};
use crate::kernel::{Endpoint, Usage, UsageSource, usage::Metered};

struct Case {
    endpoint: Endpoint,
    /// With line feeds, and with carriage returns before them.
    variants: [Vec<u8>; 2],
    usage: Option<Usage>,
    /// The number of the first event that commits.
    committed: usize,
    failed: bool,
}

fn cases() -> Vec<Case> {
    let case = |endpoint, path: &str, usage, committed, failed| {
        let path = format!("{}/../tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"));
        let plain = std::fs::read_to_string(path).unwrap().replace("\r\n", "\n");
        let variants = [plain.clone().into_bytes(), plain.replace('\n', "\r\n").into_bytes()];
        Case { endpoint, variants, usage, committed, failed }
    };
    let message = Usage { input: 1201, output: 14, cached: 1180, reasoning: 0, ..Usage::default() };
    let generated = Usage { input: 9, output: 68, cached: 0, reasoning: 58, ..Usage::default() };
    vec![
        case(Endpoint::Messages, "anthropic/anthropic_stream.sse", Some(message), 3, false),
        case(Endpoint::Messages, "anthropic/anthropic_stream_overloaded.sse", None, 3, true),
        case(Endpoint::Generate, "gemini/gemini_stream.sse", Some(generated), 0, false),
    ]
}

/// The readings of a whole stream.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    usage: Option<Usage>,
    input: Option<Usage>,
    millitokens: Estimate,
    committed: Option<usize>,
    finished: bool,
    done: bool,
    failed: bool,
    events: usize,
}

impl Seen {
    fn add(&mut self, reading: &Reading) {
        self.usage = reading.usage.or(self.usage);
        self.input = reading.input.or(self.input);
        self.millitokens += reading.output_millitokens;
        if reading.commits && self.committed.is_none() {
            self.committed = Some(self.events);
        }
        self.finished |= reading.finished;
        self.done |= reading.done;
        self.failed |= reading.failed;
        self.events += 1;
    }
}

fn watch<'a>(endpoint: Endpoint, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let (mut splitter, mut stream, mut seen) =
        (Splitter::default(), StreamReader::of(endpoint), Seen::default());
    for chunk in chunks {
        splitter.push(Bytes::copy_from_slice(chunk));
        for event in splitter.by_ref() {
            let event = event.unwrap();
            event.data().iter().for_each(|data| seen.add(&stream.read(event.name(), data)));
        }
    }
    if let Some(event) = splitter.finish() {
        event.data().iter().for_each(|data| seen.add(&stream.read(event.name(), data)));
    }
    seen
}

#[test]
fn streams_are_counted_the_same_wherever_they_are_cut() {
    for Case { endpoint, variants, usage, committed, failed } in cases() {
        let whole = watch(endpoint, [&variants[0][..]]);
        assert_eq!((whole.usage, whole.failed, whole.finished), (usage, failed, !failed));
        assert_eq!(whole.committed, Some(committed));
        assert_eq!(whole.done, endpoint == Endpoint::Messages && !failed);
        for bytes in variants {
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                assert_eq!(watch(endpoint, [first, second]), whole, "{endpoint:?} cut at {cut}");
            }
        }
    }
}

/// Counted before the break by the provider, after it by the words.
#[test]
fn a_broken_message_costs_its_counted_input_and_its_words() {
    let [_, broken, _] = cases().try_into().map_err(drop).unwrap();
    let seen = watch(broken.endpoint, [&broken.variants[0][..]]);
    let metered = Metered {
        reported: seen.usage,
        input: seen.input,
        seen_millitokens: seen.millitokens,
        ..Metered::default()
    };
    let (usage, source) = metered.usage(7);
    assert_eq!((usage.input, usage.cached, source), (1201, 1180, UsageSource::Estimated));
    assert!((1..10).contains(&usage.output), "{usage:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn many_cuts(cuts in vec(any::<Index>(), 0..40), crlf in any::<bool>()) {
        for Case { endpoint, variants, .. } in cases() {
            let bytes = &variants[usize::from(crlf)];
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut from = 0;
            let chunks = cuts.iter().map(|cut| &bytes[std::mem::replace(&mut from, *cut)..*cut]);
            prop_assert_eq!(watch(endpoint, chunks), watch(endpoint, [&bytes[..]]));
        }
    }

    /// A stream with any byte changed yields nothing impossible: no count above the plausible maximum.
    #[test]
    fn a_changed_byte_makes_no_nonsense(at in any::<Index>(), byte in any::<u8>()) {
        for Case { endpoint, variants, .. } in cases() {
            let mut bytes = variants[0].clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let seen = watch(endpoint, [&bytes[..]]);
            for usage in seen.usage.iter().chain(&seen.input) {
                prop_assert!(usage.cached <= usage.input && usage.reasoning <= usage.output);
            }
        }
    }
}
