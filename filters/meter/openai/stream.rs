//! One chat stream, read with a memory.
//!
//! The chunks of a stream repeat the same text; only the words in the middle change. Once such a chunk was
//! parsed, another one that begins and ends with the same bytes and has a plain string between them is the
//! same JSON with another string in that place, and need not be parsed. Any other chunk is.

use super::chat_event;
use crate::{
    kernel::json::Reader,
    meter::{Output, Reading, estimate},
};

/// Consecutive chunks without a known shape after which the stream counts as one whose chunks differ (by
/// OpenAI's padding, say): learning more shapes would only cost time.
const MISSES: u8 = 8;

#[derive(Debug, Default)]
pub struct ChatStream {
    shape: Option<Shape>,
    misses: u8,
}

/// What stands before and after the words of a chunk.
#[derive(Debug)]
struct Shape {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl ChatStream {
    /// As [`chat_event`].
    pub fn read(&mut self, data: &[u8]) -> Reading {
        if let Some(words) = self.shape.as_ref().and_then(|shape| shape.words(data)) {
            self.misses = 0;
            return said(words);
        }
        let reading = chat_event(data);
        if self.misses < MISSES {
            self.misses += 1;
            self.shape = Shape::of(data, &reading).or(self.shape.take());
        }
        reading
    }
}

/// The reading of a chunk that holds words and nothing else.
fn said(words: &str) -> Reading {
    Reading {
        commits: !words.is_empty(),
        output: if words.is_empty() { Output::None } else { Output::Answer },
        output_millitokens: estimate::piece(words),
        ..Reading::default()
    }
}

impl Shape {
    /// The shape of a chunk that contains the text of a single choice and nothing else.
    fn of(data: &[u8], reading: &Reading) -> Option<Self> {
        let mut reader = Reader::lenient();
        let root = reader.parse(data).ok()?;
        let mut choices = root.get("choices")?.items();
        let content = choices.next()?.get("delta")?.get("content")?;
        let span = content.span();
        let (before, after) = (data.get(..span.start + 1)?, data.get(span.end - 1..)?);
        let shape = Self { before: before.to_vec(), after: after.to_vec() };
        let alone = choices.next().is_none() && content.as_str().is_some();
        (alone && said(shape.words(data)?) == *reading).then_some(shape)
    }

    /// What stands in the place of the words, if it is a string without escapes.
    fn words<'a>(&self, data: &'a [u8]) -> Option<&'a str> {
        let words = data.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let plain = words.iter().all(|byte| *byte >= b' ' && *byte != b'"' && *byte != b'\\');
        std::str::from_utf8(words).ok().filter(|_| plain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn chunk(delta: &Value, more: &Value) -> Vec<u8> {
        let mut chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": null }],
        });
        for (name, value) in more.as_object().unwrap() {
            chunk[name] = value.clone();
        }
        chunk.to_string().into_bytes()
    }

    fn deltas() -> impl Strategy<Value = (Value, Value)> {
        let words = prop_oneof![
            "[a-z ]{0,12}",
            any::<String>(),
            Just("\"}}],\"usage\":{\"prompt_tokens\":1}".to_owned()),
        ];
        let delta = prop_oneof![
            8 => words.prop_map(|words| json!({ "content": words })),
            1 => Just(json!({ "role": "assistant", "content": "" })),
            1 => Just(json!({ "content": "a", "reasoning": "b" })),
            1 => Just(json!({ "content": null })),
            1 => Just(json!({})),
        ];
        let more = prop_oneof![
            8 => Just(json!({})),
            1 => Just(json!({ "usage": { "prompt_tokens": 1, "completion_tokens": 2 } })),
            1 => Just(json!({ "error": { "message": "no" } })),
            1 => Just(json!({ "choices": [] })),
            1 => "[a-z]{1,4}".prop_map(|padding| json!({ "obfuscation": padding })),
        ];
        (delta, more)
    }

    proptest! {
        /// Whatever came before, a chunk is read as it is by itself.
        #[test]
        fn memory_changes_no_reading(chunks in prop::collection::vec(deltas(), 0..24)) {
            let mut stream = ChatStream::default();
            for (delta, more) in &chunks {
                let data = chunk(delta, more);
                prop_assert_eq!(stream.read(&data), chat_event(&data));
            }
        }
    }

    #[test]
    fn chunks_of_one_shape_are_not_parsed_again() {
        let mut stream = ChatStream::default();
        let data = |words: &str| chunk(&json!({ "content": words }), &json!({}));
        stream.read(&data("Hello"));
        let shape = stream.shape.as_ref().unwrap();
        assert_eq!(shape.words(&data(" world, grüße")), Some(" world, grüße"));
        assert_eq!(shape.words(&data("a \"quote\"")), None);
        assert_eq!(shape.words(b"[DONE]"), None);
    }
}
