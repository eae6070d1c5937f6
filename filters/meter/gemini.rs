//! Reads answers in Gemini's dialect (`:generateContent`). A stream's chunks have the shape of the whole
//! answer; their counts are cumulative, so the last one holds. The output is what was said and what was
//! thought (`candidatesTokenCount` may be missing where there were only thoughts); the input counts cached
//! tokens and what tools put into the prompt.

use super::{
    Reading, estimate,
    json::{NotJson, count, is_empty, member_text, read},
};
use crate::kernel::{
    Usage,
    json::{Kind, Value},
};

/// One event of a stream.
pub fn event(data: &[u8]) -> Reading {
    answer(data).unwrap_or_default()
}

/// A whole answer, or a chunk of one.
///
/// # Errors
/// The body is no JSON.
pub fn answer(body: &[u8]) -> Result<Reading, NotJson> {
    read(body, |root| {
        // An error may come in a list of one.
        let first = if root.kind() == Kind::Array { root.items().next() } else { Some(root) };
        let Some(root) = first else { return Reading::default() };
        let failed = root.get("error").is_some_and(|error| !is_empty(error));
        let mut reading = Reading {
            usage: root.get("usageMetadata").and_then(counts),
            failed,
            ..Reading::default()
        };
        for candidate in root.get("candidates").iter().flat_map(Value::items) {
            read_candidate(candidate, &mut reading);
        }
        // A prompt that is refused has no candidates, and is an answer all the same.
        let feedback = root.get("promptFeedback");
        if feedback.and_then(|feedback| feedback.get("blockReason")).is_some() {
            reading.finished = true;
            reading.commits = true;
        }
        reading.commits &= !failed;
        reading
    })
}

fn read_candidate(candidate: Value<'_>, reading: &mut Reading) {
    if candidate.get("finishReason").is_some_and(|reason| !is_empty(reason)) {
        reading.finished = true;
        reading.commits = true;
    }
    let parts = candidate.get("content").and_then(|content| content.get("parts"));
    for part in parts.iter().flat_map(Value::items) {
        if part.get("text").is_some_and(|text| !is_empty(text)) {
            reading.commits = true;
            reading.output_millitokens += member_text(part, "text");
        }
        if let Some(call) = part.get("functionCall") {
            reading.commits = true;
            reading.output_millitokens += estimate::text(&String::from_utf8_lossy(call.raw()));
        }
    }
}

fn counts(usage: Value<'_>) -> Option<Usage> {
    let said = |name: &str| count(usage.get(name));
    let tools = said("toolUsePromptTokenCount").unwrap_or(0);
    let input = said("promptTokenCount")?.saturating_add(tools);
    let thoughts = said("thoughtsTokenCount");
    let spoken = said("candidatesTokenCount");
    let rest = said("totalTokenCount").and_then(|total| total.checked_sub(input));
    let output = match (spoken, thoughts) {
        (None, None) => rest?,
        (spoken, thoughts) => {
            let sum = spoken.unwrap_or(0).saturating_add(thoughts.unwrap_or(0));
            sum.max(rest.unwrap_or(0))
        }
    };
    Some(Usage {
        input,
        output,
        cached: said("cachedContentTokenCount").unwrap_or(0).min(input),
        reasoning: thoughts.unwrap_or(0).min(output),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fixture(name: &str) -> String {
        let path = format!("{}/../tests/fixtures/gemini/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn counts_are_those_of_the_reference() {
        let whole = answer(fixture("gemini_generate.json").as_bytes()).unwrap();
        let counted = Usage { input: 1320, output: 69, cached: 1024, reasoning: 58 };
        assert_eq!((whole.usage, whole.finished, whole.commits), (Some(counted), true, true));
        let stream = fixture("gemini_stream.sse");
        let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
        let readings: Vec<_> = data.map(|data| event(data.as_bytes())).collect();
        let last = readings.last().unwrap();
        let counted = Usage { input: 9, output: 68, cached: 0, reasoning: 58 };
        assert_eq!((last.usage, last.finished), (Some(counted), true));
        assert!(readings[0].commits && !readings[0].finished);
    }

    #[test]
    fn only_thoughts_a_blocked_prompt_and_a_call_are_answers() {
        let read = |value: serde_json::Value| answer(value.to_string().as_bytes()).unwrap();
        let thoughts = read(json!({"candidates": [{"finishReason": "MAX_TOKENS"}],
            "usageMetadata": {"promptTokenCount": 5, "thoughtsTokenCount": 40, "totalTokenCount": 45}}));
        assert_eq!(thoughts.usage.unwrap().output, 40);
        let blocked = read(json!({"promptFeedback": {"blockReason": "SAFETY"}}));
        assert!(blocked.commits && blocked.finished);
        let call = json!({"functionCall": {"name": "weather", "args": {"city": "Oslo"}}});
        assert!(
            read(json!({"candidates": [{"content": {"parts": [call]}}]})).output_millitokens > 1000
        );
        assert!(read(json!([{"error": {"code": 503}}])).failed);
        let empty = read(json!({}));
        assert!(!empty.commits && !empty.failed);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&data);
        }
    }
}
