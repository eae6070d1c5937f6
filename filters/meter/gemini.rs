//! Reads answers in Gemini's dialect (`:generateContent`). A stream's chunks have the shape of the whole
//! answer; their counts are cumulative, so the last one holds. The output is text and thoughts
//! (`candidatesTokenCount` may be missing where there were only thoughts); the input includes cached tokens
//! and what tools add to the prompt.

use super::{
    Output, Reading, StreamEnd, estimate,
    json::{NotJson, count, is_empty, member_text, read, read_event},
};
use crate::kernel::{
    Usage,
    json::{JsonKind, Value},
};

/// One event of a stream.
pub fn event(data: &[u8]) -> Reading {
    read_event(data, read_answer)
}

/// A whole answer, or a chunk of one.
///
/// # Errors
/// The body is no JSON.
pub fn answer(body: &[u8]) -> Result<Reading, NotJson> {
    read(body, read_answer)
}

fn read_answer(root: Value<'_>) -> Reading {
    // An error may come in a list of one.
    let first = if root.kind() == JsonKind::Array { root.items().next() } else { Some(root) };
    let Some(root) = first else { return Reading::default() };
    let failed = root.get("error").is_some_and(|error| !is_empty(error));
    let mut reading = Reading { failed, ..Reading::default() };
    for candidate in root.get("candidates").iter().flat_map(Value::items) {
        read_candidate(candidate, &mut reading);
    }
    // A refused prompt has no candidates, but is a valid answer.
    let feedback = root.get("promptFeedback");
    if feedback.and_then(|feedback| feedback.get("blockReason")).is_some() {
        reading.finished = true;
        reading.commits = true;
    }
    if let Some(usage) = root.get("usageMetadata") {
        count_into(usage, &mut reading);
    }
    reading.commits &= !failed;
    reading
}

/// Some models count their output only at the end: until then the counts cover the input only.
fn count_into(usage: Value<'_>, reading: &mut Reading) {
    let spoken = ["candidatesTokenCount", "thoughtsTokenCount"];
    let counts_output = spoken.iter().any(|name| count(usage.get(name)).is_some());
    match counts(usage) {
        Some(counted) if !counts_output && !reading.finished => {
            reading.input = Some(Usage { output: 0, reasoning: 0, ..counted });
        }
        counted => reading.usage = counted,
    }
}

/// Parts without text: pictures and sounds, and code that the model ran.
const MEDIA: [&str; 3] = ["inlineData", "executableCode", "codeExecutionResult"];

fn read_candidate(candidate: Value<'_>, reading: &mut Reading) {
    if let Some(reason) = candidate.get("finishReason").filter(|reason| !is_empty(*reason)) {
        reading.finished = true;
        reading.commits = true;
        reading.ending =
            reason.as_str().map_or(StreamEnd::Other, |it| StreamEnd::of(it.as_bytes()));
    }
    let parts = candidate.get("content").and_then(|content| content.get("parts"));
    for part in parts.iter().flat_map(Value::items) {
        if part.get("text").is_some_and(|text| !is_empty(text)) {
            let thinks = part.get("thought").and_then(|it| it.as_bool()) == Some(true);
            let carries = if thinks { Output::Reasoning } else { Output::Answer };
            reading.commits = true;
            reading.output = reading.output.max(carries);
            reading.output_millitokens += member_text(part, "text");
        } else if MEDIA.iter().any(|name| part.get(name).is_some()) {
            reading.commits = true;
            reading.output = Output::Answer;
        }
        if let Some(call) = part.get("functionCall") {
            reading.commits = true;
            reading.output = Output::Answer;
            reading.output_millitokens += estimate::piece(&String::from_utf8_lossy(call.raw()));
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
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::kernel::Vocabulary;

    fn fixture(name: &str) -> String {
        let path = format!("{}/../tests/fixtures/gemini/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn counts_are_those_of_the_reference() {
        let whole = answer(fixture("gemini_generate.json").as_bytes()).unwrap();
        let counted =
            Usage { input: 1320, output: 69, cached: 1024, reasoning: 58, ..Usage::default() };
        assert_eq!((whole.usage, whole.finished, whole.commits), (Some(counted), true, true));
        let stream = fixture("gemini_stream.sse");
        let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
        let readings: Vec<_> = data.map(|data| event(data.as_bytes())).collect();
        let last = readings.last().unwrap();
        let counted = Usage { input: 9, output: 68, cached: 0, reasoning: 58, ..Usage::default() };
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
            read(json!({"candidates": [{"content": {"parts": [call]}}]}))
                .output_millitokens
                .millitokens(Vocabulary::O200k)
                > 500
        );
        assert!(read(json!([{"error": {"code": 503}}])).failed);
        let empty = read(json!({}));
        assert!(!empty.commits && !empty.failed);
    }

    #[test]
    fn a_stream_that_counts_its_output_at_the_end_is_not_free_before() {
        let read = |value: serde_json::Value| event(value.to_string().as_bytes());
        let counts = json!({"promptTokenCount": 8, "totalTokenCount": 8});
        let parts = json!({"parts": [{"text": "A long story"}]});
        let first = read(json!({"candidates": [{"content": parts}], "usageMetadata": counts}));
        assert_eq!((first.usage, first.input.unwrap().input), (None, 8));
        assert!(first.output_millitokens.millitokens(Vocabulary::O200k) > 500);
        let last = read(json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": counts}));
        assert_eq!(last.usage, Some(Usage { input: 8, ..Usage::default() }));
    }

    #[test]
    fn odd_counts_are_missing_and_the_total_mends_what_is_left_out() {
        let usage = |value: serde_json::Value| {
            let body = json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": value});
            answer(body.to_string().as_bytes()).unwrap().usage
        };
        let counted = |input, output| Some(Usage { input, output, ..Usage::default() });
        assert_eq!(usage(json!({"promptTokenCount": 5, "totalTokenCount": 12})), counted(5, 7));
        assert_eq!(
            usage(json!({"promptTokenCount": 5, "toolUsePromptTokenCount": 2,
                "candidatesTokenCount": 3, "totalTokenCount": 10})),
            counted(7, 3)
        );
        assert_eq!(usage(json!({"promptTokenCount": 5, "candidatesTokenCount": 0})), counted(5, 0));
        for odd in [json!(-1), json!(1.5), json!("5"), json!(null), json!(1e300)] {
            let odd = json!({"promptTokenCount": odd, "candidatesTokenCount": 3});
            assert_eq!(usage(odd.clone()), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&data);
        }

        /// In any answer, thoughts are output and cached tokens are input.
        #[test]
        fn counts_never_contradict_themselves(
            prompt in prop::option::of(0..1_000_000u64),
            spoken in prop::option::of(0..1_000_000u64),
            thoughts in prop::option::of(0..1_000_000u64),
            cached in prop::option::of(0..2_000_000u64),
        ) {
            let usage = json!({"promptTokenCount": prompt, "candidatesTokenCount": spoken,
                "thoughtsTokenCount": thoughts, "cachedContentTokenCount": cached});
            let reading = event(json!({"usageMetadata": usage}).to_string().as_bytes());
            match (prompt, spoken.or(thoughts)) {
                (Some(prompt), Some(_)) => {
                    let usage = reading.usage.unwrap();
                    let output = spoken.unwrap_or(0) + thoughts.unwrap_or(0);
                    prop_assert_eq!((usage.input, usage.output), (prompt, output));
                    prop_assert!(usage.cached <= usage.input && usage.reasoning <= usage.output);
                }
                _ => prop_assert_eq!(reading.usage, None),
            }
        }
    }
}
