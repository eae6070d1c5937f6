//! Reads answers in Anthropic's dialect (`/v1/messages`).
//!
//! `input_tokens` leaves cached and newly cached tokens out: the input is the sum of the three. Counts of a
//! stream are cumulative; missing or null ones keep their last value. The output includes thinking.

use super::{
    Output, Reading, StreamEnd,
    estimate::{self, Estimate},
    json::{NotJson, count, is_empty, member_text, read, read_event},
};
use crate::kernel::{Usage, json::Value};

/// One stream, with its counts so far.
#[derive(Debug, Default)]
pub struct AnthropicStream {
    input: Option<u64>,
    creation: u64,
    /// Of the creation: kept for an hour.
    creation_1h: u64,
    cached: u64,
    output: Option<u64>,
    /// Of the output.
    thinking: u64,
}

impl AnthropicStream {
    /// One event. The type within the data wins over the event's name.
    pub fn read(&mut self, event_name: Option<&str>, data: &[u8]) -> Reading {
        read_event(data, |root| self.event(event_name, root))
    }

    fn event(&mut self, event_name: Option<&str>, root: Value<'_>) -> Reading {
        let written = root.get("type").and_then(|kind| kind.as_str());
        let mut reading = Reading::default();
        match written.as_deref().or(event_name).unwrap_or_default() {
            "message_start" => {
                let usage = root.get("message").and_then(|message| message.get("usage"));
                usage.into_iter().for_each(|usage| self.take(usage));
                // The output reported there is only the first token.
                reading.input = self.usage(Some(0));
            }
            "content_block_start" => {
                if let Some(block) = root.get("content_block") {
                    block_start(block, &mut reading);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = root.get("delta") {
                    block_delta(delta, &mut reading);
                }
            }
            "message_delta" => {
                let delta = root.get("delta");
                let stopped = delta.and_then(|delta| delta.get("stop_reason"));
                if let Some(reason) = stopped.filter(|reason| !is_empty(*reason)) {
                    reading.finished = true;
                    reading.commits = true;
                    reading.ending = ending(reason);
                }
                if let Some(usage) = root.get("usage").filter(|usage| !usage.is_null()) {
                    self.take(usage);
                    reading.usage = self.usage(self.output);
                }
            }
            "message_stop" => reading.done = true,
            "error" => reading.failed = true,
            _ => {}
        }
        reading
    }

    fn take(&mut self, usage: Value<'_>) {
        let said = |name: &str| count(usage.get(name));
        let details = usage.get("output_tokens_details");
        let thinking = details.and_then(|details| count(details.get("thinking_tokens")));
        self.input = said("input_tokens").or(self.input);
        self.take_creation(usage);
        self.cached = said("cache_read_input_tokens").unwrap_or(self.cached);
        self.output = said("output_tokens").or(self.output);
        self.thinking = thinking.unwrap_or(self.thinking);
    }

    /// What was written to the cache: a sum, and the same by how long it is kept.
    fn take_creation(&mut self, usage: Value<'_>) {
        let parts = usage.get("cache_creation");
        let part = |name: &str| parts.and_then(|parts| count(parts.get(name)));
        let hour = part("ephemeral_1h_input_tokens");
        let minutes = part("ephemeral_5m_input_tokens");
        let sum = match (minutes, hour) {
            (None, None) => None,
            _ => Some(minutes.unwrap_or(0).saturating_add(hour.unwrap_or(0))),
        };
        let told = count(usage.get("cache_creation_input_tokens")).max(sum);
        self.creation = told.unwrap_or(self.creation);
        self.creation_1h = hour.unwrap_or(self.creation_1h);
    }

    /// `None` while the input or the output is not known.
    fn usage(&self, output: Option<u64>) -> Option<Usage> {
        let (uncached, output) = (self.input?, output?);
        let input = uncached.saturating_add(self.creation).saturating_add(self.cached);
        Some(Usage {
            input,
            output,
            cached: self.cached,
            cache_write: self.creation,
            cache_write_1h: self.creation_1h.min(self.creation),
            reasoning: self.thinking.min(output),
        })
    }
}

/// A call is shown by name before its arguments come; other blocks begin empty.
fn block_start(block: Value<'_>, reading: &mut Reading) {
    let kind = block.get("type").and_then(|kind| kind.as_str());
    let name = if kind.as_deref() == Some("tool_use") { "name" } else { "text" };
    if block.get(name).is_some_and(|text| !is_empty(text)) {
        reading.commits = true;
        reading.output = Output::Answer;
        reading.output_millitokens = member_text(block, name);
    }
}

fn block_delta(delta: Value<'_>, reading: &mut Reading) {
    for name in ["text", "thinking", "partial_json"] {
        if delta.get(name).is_some_and(|text| !is_empty(text)) {
            reading.commits = true;
            let carries = if name == "thinking" { Output::Reasoning } else { Output::Answer };
            reading.output = reading.output.max(carries);
            reading.output_millitokens += member_text(delta, name);
        }
    }
}

/// A whole message.
///
/// # Errors
/// The body is no JSON.
pub fn answer(body: &[u8]) -> Result<Reading, NotJson> {
    read(body, |root| {
        let failed = root.get("type").is_some_and(|kind| kind.raw() == br#""error""#)
            || root.get("error").is_some_and(|error| !is_empty(error));
        let mut counts = AnthropicStream::default();
        root.get("usage").into_iter().for_each(|usage| counts.take(usage));
        let stopped = root.get("stop_reason").filter(|reason| !is_empty(*reason));
        let content = root.get("content").filter(|content| !is_empty(*content));
        Reading {
            usage: counts.usage(counts.output),
            output_millitokens: content
                .map_or(Estimate::default(), |blocks| blocks.items().map(block).sum()),
            commits: (content.is_some() || stopped.is_some()) && !failed,
            output: content.map_or(Output::None, |blocks| {
                blocks.items().map(carries).max().unwrap_or_default()
            }),
            finished: stopped.is_some(),
            ending: stopped.map_or(StreamEnd::Other, ending),
            failed,
            ..Reading::default()
        }
    })
}

fn ending(reason: Value<'_>) -> StreamEnd {
    reason.as_str().map_or(StreamEnd::Other, |reason| StreamEnd::of(reason.as_bytes()))
}

fn carries(block: Value<'_>) -> Output {
    let kind = block.get("type").and_then(|kind| kind.as_str());
    match kind.as_deref() {
        Some("thinking" | "redacted_thinking") => Output::Reasoning,
        Some("text") if block.get("text").is_none_or(is_empty) => Output::None,
        _ => Output::Answer,
    }
}

fn block(block: Value<'_>) -> Estimate {
    let written = |input: Value<'_>| estimate::piece(&String::from_utf8_lossy(input.raw()));
    let input = block.get("input").map_or(Estimate::default(), written);
    ["text", "thinking", "name"].iter().map(|name| member_text(block, name)).sum::<Estimate>()
        + input
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::kernel::Vocabulary;

    fn fixture(name: &str) -> String {
        let path = format!("{}/../tests/fixtures/anthropic/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// All readings of a stream together.
    fn whole(stream: &str) -> (Vec<Reading>, Option<Usage>) {
        let mut state = AnthropicStream::default();
        let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
        let readings: Vec<_> = data.map(|data| state.read(None, data.as_bytes())).collect();
        let usage = readings.iter().filter_map(|reading| reading.usage).next_back();
        (readings, usage)
    }

    const EMPTY: Usage =
        Usage { input: 0, output: 0, cached: 0, cache_write: 0, cache_write_1h: 0, reasoning: 0 };
    const COUNTED: Usage = Usage { input: 1201, output: 14, cached: 1180, ..EMPTY };

    #[test]
    fn counts_are_those_of_the_reference() {
        assert_eq!(
            answer(fixture("anthropic_messages.json").as_bytes()).unwrap().usage,
            Some(COUNTED)
        );
        let (readings, usage) = whole(&fixture("anthropic_stream.sse"));
        assert_eq!(usage, Some(COUNTED));
        assert_eq!(readings[0].input, Some(Usage { output: 0, ..COUNTED }));
        let first = readings.iter().position(|reading| reading.commits);
        assert_eq!(first, Some(3), "start, an empty block and a ping are no output");
        assert!(readings.last().unwrap().done && readings[readings.len() - 2].finished);
    }

    #[test]
    fn a_stream_that_fails_has_counted_its_input() {
        let (readings, usage) = whole(&fixture("anthropic_stream_overloaded.sse"));
        assert_eq!(usage, None);
        assert_eq!(readings[0].input.unwrap().input, 1201);
        assert!(readings.last().unwrap().failed);
    }

    #[test]
    fn null_keeps_what_was_said_before_and_nonsense_is_missing() {
        let mut state = AnthropicStream::default();
        let start = json!({"type": "message_start", "message": {"usage":
            {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1}}});
        state.read(None, start.to_string().as_bytes());
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens"},
            "usage": {"input_tokens": null, "output_tokens": 5, "cache_read_input_tokens": -4}});
        let reading = state.read(None, delta.to_string().as_bytes());
        let expected = Usage { input: 10, output: 5, cached: 3, ..EMPTY };
        assert_eq!((reading.usage, reading.finished), (Some(expected), true));
    }

    #[test]
    fn tools_and_thinking_are_output() {
        let mut state = AnthropicStream::default();
        let mut read = |event: serde_json::Value| state.read(None, event.to_string().as_bytes());
        let tool = json!({"type": "content_block_start", "content_block":
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}});
        assert!(read(tool).commits);
        for (delta, commits) in [
            (json!({"type": "input_json_delta", "partial_json": "{\"a\""}), true),
            (json!({"type": "input_json_delta", "partial_json": ""}), false),
            (json!({"type": "thinking_delta", "thinking": "Hm."}), true),
            (json!({"type": "signature_delta", "signature": "EqQB"}), false),
        ] {
            let reading = read(json!({"type": "content_block_delta", "delta": delta}));
            assert_eq!(reading.commits, commits, "{delta}");
            assert_eq!(!reading.output_millitokens.is_zero(), commits, "{delta}");
        }
        let message = json!({"content": [{"type": "tool_use", "name": "weather", "input": {"city": "Oslo"}}]});
        let reading = answer(message.to_string().as_bytes()).unwrap();
        assert!(reading.commits && reading.output_millitokens.millitokens(Vocabulary::O200k) > 500);
        assert!(!answer(b"{}").unwrap().commits && answer(b"{").is_err());
        assert!(answer(br#"{"type":"error","error":{"type":"overloaded_error"}}"#).unwrap().failed);
    }

    #[test]
    fn a_count_without_its_input_is_none() {
        let mut state = AnthropicStream::default();
        let start = json!({"type": "message_start", "message": {"usage": {"output_tokens": 1}}});
        assert_eq!(state.read(None, start.to_string().as_bytes()).input, None);
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 4}}});
        assert_eq!(state.read(None, delta.to_string().as_bytes()).usage, None);
        let late = json!({"type": "message_delta", "usage": {"input_tokens": 7}});
        let expected = Usage { input: 7, output: 5, reasoning: 4, ..EMPTY };
        assert_eq!(state.read(None, late.to_string().as_bytes()).usage, Some(expected));
        assert_eq!(answer(br#"{"usage":{"output_tokens":5}}"#).unwrap().usage, None);
    }

    proptest! {
        /// Counts are cumulative and any may be null: the last value holds, nothing is added.
        #[test]
        fn the_last_word_on_each_count_holds(
            words in prop::collection::vec(
                (prop::option::of(0..1_000_000u64), prop::option::of(0..1_000_000u64),
                 prop::option::of(0..1_000_000u64), prop::option::of(0..1_000_000u64)), 1..8)
        ) {
            let mut state = AnthropicStream::default();
            let mut last = (None, None, None, None);
            let mut usage = None;
            for (index, (input, creation, cached, output)) in words.into_iter().enumerate() {
                last = (input.or(last.0), creation.or(last.1), cached.or(last.2), output.or(last.3));
                let counts = json!({"input_tokens": input, "cache_creation_input_tokens": creation,
                    "cache_read_input_tokens": cached, "output_tokens": output});
                let event = match index {
                    0 => json!({"type": "message_start", "message": {"usage": counts}}),
                    _ => json!({"type": "message_delta", "usage": counts}),
                };
                usage = state.read(None, event.to_string().as_bytes()).usage.or(usage);
                let known = last.0.zip(last.3).filter(|_| index > 0);
                let expected = known.map(|(input, output)| Usage {
                    input: input + last.1.unwrap_or(0) + last.2.unwrap_or(0),
                    output,
                    cached: last.2.unwrap_or(0),
                    cache_write: last.1.unwrap_or(0),
                    ..EMPTY
                });
                prop_assert_eq!(usage, expected);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            AnthropicStream::default().read(Some("message_delta"), &data);
            let _ = answer(&data);
        }
    }
}
