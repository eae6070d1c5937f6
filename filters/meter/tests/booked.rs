//! What is counted is close to what was billed, wherever an answer reports its counts.

use std::time::Instant;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use crate::{
    kernel::{Credential, Endpoint, Exchange, Filter, UnixMs, Vocabulary},
    meter::{Meter, StreamReader, estimate},
};

/// Text and its tokens in the o200k vocabulary.
const TEXTS: [(&str, u64); 4] = [
    (include_str!("../estimate/samples/english.txt"), 133),
    (include_str!("../estimate/samples/rust.txt"), 194),
    (include_str!("../estimate/samples/markdown.txt"), 134),
    (include_str!("../estimate/samples/base64.txt"), 885),
];

/// What stands between two texts of a stream.
#[derive(Debug, Clone, Copy)]
enum Count {
    Missing,
    Null,
    /// Of everything so far.
    True,
    InChoice,
    OfGroq,
    TotalAlone,
    /// Placeholders.
    Noughts,
    InputAlone,
    /// No count at all.
    Nonsense,
}

const COUNTS: [Count; 9] = [
    Count::Missing,
    Count::Null,
    Count::True,
    Count::InChoice,
    Count::OfGroq,
    Count::TotalAlone,
    Count::Noughts,
    Count::InputAlone,
    Count::Nonsense,
];

impl Count {
    fn event(self, input: u64, output: u64) -> Option<Value> {
        let usage = |input: u64, output: u64| {
            json!({ "prompt_tokens": input, "completion_tokens": output,
                    "total_tokens": input + output })
        };
        let with = |usage: Value| json!({ "choices": [], "usage": usage });
        match self {
            Count::Missing => None,
            Count::Null => Some(json!({ "choices": [{ "delta": {} }], "usage": null })),
            Count::True => Some(with(usage(input, output))),
            Count::InChoice => {
                Some(json!({ "choices": [{ "delta": {}, "usage": usage(input, output) }] }))
            }
            Count::OfGroq => {
                Some(json!({ "choices": [], "x_groq": { "usage": usage(input, output) } }))
            }
            Count::TotalAlone => Some(with(json!({ "total_tokens": input + output }))),
            Count::Noughts => Some(with(usage(0, 0))),
            Count::InputAlone => Some(with(usage(input, 0))),
            Count::Nonsense => Some(with(json!({ "prompt_tokens": -1, "completion_tokens": "7" }))),
        }
    }
}

/// Splits at a character, about so far on.
fn split(text: &str, percent: usize) -> (&str, &str) {
    text.split_at(text.floor_char_boundary(text.len() * percent / 100))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn counts_anywhere_and_any_text_are_booked_near_the_truth(
        prompt in select(&TEXTS[..]),
        parts in vec((select(&TEXTS[..]), 0..=100_usize, select(&COUNTS[..])), 1..6),
        first in select(&COUNTS[..]),
    ) {
        let mut stream = StreamReader::of(Endpoint::Chat);
        let mut exchange =
            Exchange::new(Endpoint::Chat, Credential::new("K"), UnixMs(0), Instant::now());
        exchange.input_tokens = estimate::text(prompt.0).tokens(Vocabulary::O200k);
        exchange.progress.answered = true;
        let mut read = |event: &Value| {
            let reading = stream.read(None, event.to_string().as_bytes());
            Meter {}.chunk(&mut exchange, &reading);
        };
        first.event(prompt.1, 0).iter().for_each(&mut read);
        let mut output = 0;
        for ((text, tokens), percent, count) in parts {
            let (one, other) = split(text, percent);
            for piece in [one, other] {
                read(&json!({ "choices": [{ "delta": { "content": piece } }] }));
            }
            output += tokens;
            count.event(prompt.1, output).iter().for_each(&mut read);
        }
        let (billed, booked) = (prompt.1 + output, exchange.usage().0.total());
        let ratio = booked as f64 / billed as f64;
        prop_assert!((0.9..=1.6).contains(&ratio), "{booked} booked, {billed} billed");
    }
}
