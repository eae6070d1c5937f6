use std::path::PathBuf;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::json;

use super::*;
use crate::kernel::Usage;
use crate::{
    kernel::{Metered, UsageSource, Vocabulary},
    meter::{
        estimate::{self, Estimate},
        sse::{Event, Splitter},
    },
};

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/openai");
    std::fs::read(folder.join(name)).unwrap()
}

/// The readings of a whole stream, folded as the meter folds them.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    usage: Option<Usage>,
    millitokens: Estimate,
    /// The number of the first event that commits.
    committed: Option<usize>,
    finished: bool,
    done: bool,
    usage_only: usize,
    failed: bool,
    events: usize,
}

impl Seen {
    fn add(&mut self, reading: &Reading) {
        self.usage = reading.usage.or(self.usage);
        self.millitokens += reading.output_millitokens;
        if reading.commits && self.committed.is_none() {
            self.committed = Some(self.events);
        }
        self.finished |= reading.finished;
        self.done |= reading.done;
        self.usage_only += usize::from(reading.usage_only);
        self.failed |= reading.failed;
        self.events += 1;
    }
}

fn read_event(endpoint: Endpoint, event: &Event) -> Option<Reading> {
    let data = event.data()?;
    Some(match endpoint {
        Endpoint::Responses => responses_event(event.name(), data),
        _ => chat_event(data),
    })
}

fn watch<'a>(endpoint: Endpoint, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut splitter = Splitter::default();
    let mut seen = Seen::default();
    for chunk in chunks {
        splitter.push(Bytes::copy_from_slice(chunk));
        for event in splitter.by_ref() {
            read_event(endpoint, &event.unwrap()).iter().for_each(|reading| seen.add(reading));
        }
    }
    let last = splitter.finish().and_then(|event| read_event(endpoint, &event));
    last.iter().for_each(|reading| seen.add(reading));
    seen
}

fn expected(usage: &serde_json::Value) -> Option<Usage> {
    let usage = usage.as_object()?;
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("total"), count("input") + count("output"));
    Some(Usage {
        input: count("input"),
        output: count("output"),
        cached: count("cached_input"),
        reasoning: count("reasoning_output"),
        ..Usage::default()
    })
}

fn endpoint_of(name: &str) -> Endpoint {
    match name {
        _ if name.contains("responses") => Endpoint::Responses,
        _ if name.contains("embeddings") => Endpoint::Embeddings,
        _ => Endpoint::Chat,
    }
}

struct Stream {
    name: String,
    endpoint: Endpoint,
    /// The bytes with LF and with CR LF.
    variants: [Vec<u8>; 2],
    usage: Option<Usage>,
}

fn streams() -> Vec<Stream> {
    let index: serde_json::Value = serde_json::from_slice(&fixture("index.json")).unwrap();
    let names = index.as_object().unwrap();
    let streams = names.iter().filter(|(name, _)| name.ends_with(".sse"));
    streams
        .map(|(name, entry)| {
            let text = String::from_utf8(fixture(name)).unwrap();
            let with_crlf = text.replace('\n', "\r\n").into_bytes();
            Stream {
                name: name.clone(),
                endpoint: endpoint_of(name),
                variants: [text.into_bytes(), with_crlf],
                usage: expected(&entry["expect_usage"]),
            }
        })
        .collect()
}

#[test]
fn streams_are_counted_the_same_however_they_are_cut() {
    let streams = streams();
    assert_eq!(streams.len(), 4);
    for Stream { name, endpoint, variants, usage } in streams {
        let whole = watch(endpoint, [&variants[0][..]]);
        assert_eq!(whole.usage, usage, "{name}");
        assert!(whole.finished && !whole.failed, "{name}");
        for bytes in variants {
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                assert_eq!(watch(endpoint, [first, second]), whole, "{name} cut at {cut}");
            }
        }
    }
}

#[test]
fn the_commit_point_of_each_stream() {
    let first = |name: &str| watch(endpoint_of(name), [&fixture(name)[..]]).committed;
    assert_eq!(first("openai_chat_stream.sse"), Some(1));
    assert_eq!(first("openai_chat_stream_nousage.sse"), Some(1));
    assert_eq!(first("groq_chat_stream.sse"), Some(1));
    assert_eq!(first("openai_responses_stream.sse"), Some(6));
}

/// The pieces of a text weigh about what it weighs.
fn assert_near(pieces: Estimate, text: &str) {
    let (pieces, whole) = (
        pieces.millitokens(Vocabulary::O200k),
        estimate::text(text).millitokens(Vocabulary::O200k),
    );
    assert!((whole * 7 / 10..=whole * 13 / 10).contains(&pieces), "{pieces} for {whole}: {text}");
}

#[test]
fn the_extra_chunk_is_found() {
    let extra = |name: &str| watch(endpoint_of(name), [&fixture(name)[..]]).usage_only;
    assert_eq!(extra("openai_chat_stream.sse"), 1);
    assert_eq!(extra("openai_chat_stream_nousage.sse"), 0);
    assert_eq!(extra("groq_chat_stream.sse"), 1);
    assert_eq!(extra("openai_responses_stream.sse"), 0);
}

#[test]
fn without_usage_the_text_is_estimated() {
    let seen = watch(Endpoint::Chat, [&fixture("openai_chat_stream_nousage.sse")[..]]);
    let text = "Reykjavík is the capital of Iceland. ☀️";
    assert_near(seen.millitokens, text);
    let metered = Metered {
        reported: seen.usage,
        seen_millitokens: seen.millitokens,
        vocabulary: Vocabulary::O200k,
        ..Metered::default()
    };
    let (usage, source) = metered.usage(24);
    assert_eq!((usage.input, source), (24, UsageSource::Estimated));
    assert!((6..=16).contains(&usage.output), "{}", usage.output);
}

#[test]
fn a_stream_of_all_tricks() {
    let bytes = fixture("tricky_chat_stream.sse");
    let whole = watch(Endpoint::Chat, [&bytes[..]]);
    assert_near(whole.millitokens, "Grüße, 😀 data: x\n\n日本語");
    let expected = Seen {
        usage: Some(Usage { input: 9, output: 11, cached: 4, reasoning: 3, ..Usage::default() }),
        millitokens: whole.millitokens,
        committed: Some(1),
        finished: true,
        done: true,
        usage_only: 1,
        failed: false,
        events: 6,
    };
    assert_eq!(whole, expected);
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(watch(Endpoint::Chat, [first, second]), whole, "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn many_cuts(cuts in vec(any::<Index>(), 0..40), crlf in any::<bool>()) {
        for Stream { name, endpoint, variants, .. } in streams() {
            let bytes = &variants[usize::from(crlf)];
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut from = 0;
            let chunks = cuts.iter().map(|cut| &bytes[std::mem::replace(&mut from, *cut)..*cut]);
            prop_assert_eq!(watch(endpoint, chunks), watch(endpoint, [&bytes[..]]), "{}", name);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300), at in any::<Index>(), byte in any::<u8>()) {
        let _ = (chat_event(&bytes), responses_event(None, &bytes));
        for name in ["openai_chat.json", "openai_responses.json", "openai_embeddings.json"] {
            let mut body = fixture(name);
            let at = at.index(body.len());
            body[at] = byte;
            let _ = (answer(endpoint_of(name), &body), chat_event(&body), responses_event(None, &body));
        }
    }
}

#[test]
fn whole_answers() {
    let index: serde_json::Value = serde_json::from_slice(&fixture("index.json")).unwrap();
    for (name, entry) in index.as_object().unwrap() {
        if !name.ends_with(".json") {
            continue;
        }
        let body = fixture(name);
        let reading = answer(endpoint_of(name), &body).unwrap();
        let good = entry["status"] == 200;
        assert_eq!(reading.usage, expected(&entry["expect_usage"]), "{name}");
        assert_eq!(reading.failed, !good, "{name}");
        assert_eq!((reading.commits, reading.finished), (good, good), "{name}");
        assert!(answer(endpoint_of(name), &body[..body.len() - 3]).is_err(), "{name}");
    }
    let text = estimate::piece("Reykjavík is the capital of Iceland.");
    let responses = answer(Endpoint::Responses, &fixture("openai_responses.json")).unwrap();
    assert_eq!(responses.output_millitokens, text);
    let counted = String::from_utf8(fixture("openai_chat.json").to_vec()).unwrap();
    let chat = answer(Endpoint::Chat, counted.as_bytes()).unwrap();
    assert_eq!(chat.output_millitokens, Estimate::default(), "counted by the provider");
    let uncounted = counted.replace("\"usage\"", "\"uncounted\"");
    let chat = answer(Endpoint::Chat, uncounted.as_bytes()).unwrap();
    assert_eq!(chat.output_millitokens, estimate::piece("Reykjavík is the capital of Iceland. ☀️"));
}

#[test]
fn an_answer_that_says_nothing() {
    assert_eq!(answer(Endpoint::Chat, b"{}"), Ok(Reading::default()));
    assert_eq!(answer(Endpoint::Chat, br#"{"choices":[]}"#), Ok(Reading::default()));
    assert_eq!(answer(Endpoint::Responses, b"[]"), Ok(Reading::default()));
    let error = answer(Endpoint::Chat, b"<html>").unwrap_err();
    assert_eq!(error.to_string(), "the answer is not JSON: unexpected character at byte 0");
    for (data, malformed) in [
        ("", false),
        (" ", false),
        ("null", false),
        ("<html>", true),
        ("{\"choices\":[", true),
        ("[DONE", true),
    ] {
        let nothing = Reading { malformed, ..Reading::default() };
        assert_eq!(chat_event(data.as_bytes()), nothing, "{data}");
        assert_eq!(responses_event(None, data.as_bytes()), nothing, "{data}");
    }
    assert!(chat_event(b" [DONE] ").done && responses_event(None, b"[DONE]").done);
}

fn usage(usage: serde_json::Value) -> Option<Usage> {
    let event = json!({"choices": [], "usage": usage}).to_string();
    chat_event(event.as_bytes()).usage
}

fn some(input: u64, output: u64) -> Option<Usage> {
    Some(Usage { input, output, ..Usage::default() })
}

#[test]
fn what_counts_as_usage() {
    let none: Option<Usage> = None;
    assert_eq!(usage(json!(null)), none);
    assert_eq!(usage(json!({})), none);
    assert_eq!(usage(json!([1, 2])), none);
    assert_eq!(usage(json!({"prompt_tokens": 0, "completion_tokens": 0})), some(0, 0));
    assert_eq!(usage(json!({"prompt_tokens": 5, "completion_tokens": 2})), some(5, 2));
    assert_eq!(usage(json!({"input_tokens": 5, "output_tokens": 2})), some(5, 2));
    // Gemini's thoughts are only in the total.
    let thoughts = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 60});
    assert_eq!(usage(thoughts), some(5, 55));
    assert_eq!(usage(json!({"prompt_tokens": 5, "total_tokens": 60})), some(5, 55));
    assert_eq!(usage(json!({"completion_tokens": 5, "total_tokens": 60})), some(55, 5));
    let small = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 1});
    assert_eq!(usage(small), some(5, 2));
    // Half a usage would charge half of the answer.
    assert_eq!(usage(json!({"prompt_tokens": 5})), none);
    assert_eq!(usage(json!({"completion_tokens": 5})), none);
    for nonsense in [json!(-1), json!(1.5), json!("7"), json!(1e30), json!(1u64 << 54), json!(null)]
    {
        let odd = json!({"prompt_tokens": 5, "completion_tokens": nonsense});
        assert_eq!(usage(odd), none);
        let odd = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": nonsense});
        assert_eq!(usage(odd), some(5, 2));
    }
    let parts = json!({
        "prompt_tokens": 5, "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 900},
        "completion_tokens_details": {"reasoning_tokens": 900},
    });
    assert_eq!(
        usage(parts),
        Some(Usage { input: 5, output: 2, cached: 5, reasoning: 2, ..Usage::default() })
    );
    let parts = json!({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": null});
    assert_eq!(usage(parts), some(5, 2));
}

#[test]
fn groq_tells_usage_without_being_asked() {
    let event = json!({"choices": [{"delta": {}, "finish_reason": "stop"}],
        "x_groq": {"id": "r", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}});
    let reading = chat_event(event.to_string().as_bytes());
    assert_eq!(reading.usage, some(3, 4));
    assert!(!reading.usage_only && reading.finished && reading.commits);
}

fn delta(delta: serde_json::Value) -> (bool, Estimate) {
    let event = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    let reading = chat_event(event.to_string().as_bytes());
    (reading.commits, reading.output_millitokens)
}

#[test]
fn what_commits_a_chat_stream() {
    let abc = estimate::piece("abc");
    let none = Estimate::default();
    assert_eq!(delta(json!({"role": "assistant"})), (false, none));
    let nothing = json!({"role": "assistant", "content": "", "refusal": null, "tool_calls": [], "audio": null});
    assert_eq!(delta(nothing), (false, none));
    for name in ["content", "refusal", "reasoning", "reasoning_content"] {
        assert_eq!(delta(json!({ name: "abc" })), (true, abc), "{name}");
    }
    assert_eq!(delta(json!({"reasoning": "abc", "reasoning_content": "abc"})), (true, abc));
    assert_eq!(delta(json!({"content": [{"type": "text", "text": "abc"}]})), (true, abc));
    let call = json!({"index": 0, "function": {"name": "abc", "arguments": "abc"}});
    assert_eq!(delta(json!({"tool_calls": [call, call]})), (true, [abc; 4].into_iter().sum()));
    assert_eq!(delta(json!({"tool_calls": [{"index": 0, "id": "x"}]})), (true, none));
    assert_eq!(delta(json!({"function_call": {"arguments": "abc"}})), (true, abc));
    assert_eq!(delta(json!({"audio": {"data": "UklGRg==", "transcript": "abc"}})), (true, abc));
}

#[test]
fn a_finish_commits_and_an_empty_one_does_not() {
    let finish = |reason: serde_json::Value| {
        let event = json!({"choices": [{"delta": {}, "finish_reason": reason}]});
        let reading = chat_event(event.to_string().as_bytes());
        (reading.commits, reading.finished)
    };
    assert_eq!(finish(json!("length")), (true, true));
    assert_eq!(finish(json!(null)), (false, false));
    assert_eq!(finish(json!("")), (false, false));
}

#[test]
fn chunks_without_choices_are_not_all_usage() {
    let azure = br#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}],"usage":null}"#;
    assert_eq!(chat_event(azure), Reading::default());
    let running = br#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    assert!(!chat_event(running).usage_only);
}

#[test]
fn errors_inside_an_answer() {
    for event in [
        r#"{"error":{"message":"m","code":429}}"#,
        r#"{"error":"overloaded"}"#,
        r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]"#,
        r#"{"choices":[{"delta":{},"finish_reason":"error"}],"error":{"code":502}}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"r","error":"over capacity"}}"#,
        r#"{"object":"error","message":"m","code":500}"#,
    ] {
        let reading = chat_event(event.as_bytes());
        assert!(reading.failed && !reading.commits, "{event}");
        assert!(answer(Endpoint::Chat, event.as_bytes()).unwrap().failed, "{event}");
    }
    for event in [r#"{"error":null}"#, r#"{"error":""}"#, r#"[]"#, r#"{"x_groq":{"error":null}}"#] {
        assert!(!chat_event(event.as_bytes()).failed, "{event}");
    }
}

#[test]
fn the_events_of_a_responses_stream() {
    let read = |event: serde_json::Value| responses_event(None, event.to_string().as_bytes());
    let call = json!({"type": "response.output_item.added", "item": {"type": "function_call", "name": "abc", "arguments": ""}});
    assert_eq!(
        (read(call.clone()).commits, read(call).output_millitokens),
        (true, estimate::piece("abc"))
    );
    let message =
        json!({"type": "response.output_item.added", "item": {"type": "message", "content": []}});
    assert_eq!(read(message), Reading::default());
    for kind in [
        "output_text",
        "refusal",
        "reasoning_text",
        "reasoning_summary_text",
        "function_call_arguments",
    ] {
        let delta = json!({"type": format!("response.{kind}.delta"), "delta": "abc"});
        assert_eq!(
            (read(delta.clone()).commits, read(delta).output_millitokens),
            (true, estimate::piece("abc"))
        );
        let delta = json!({"type": format!("response.{kind}.delta"), "delta": ""});
        assert!(!read(delta).commits);
    }
    let usage = json!({"input_tokens": 3, "output_tokens": 4});
    let end = |kind: &str| read(json!({"type": kind, "response": {"error": null, "usage": usage}}));
    let completed = end("response.completed");
    assert!(completed.commits && completed.finished && !completed.failed);
    assert!(end("response.incomplete").finished);
    let failed = end("response.failed");
    assert!(failed.failed && failed.finished && !failed.commits);
    assert_eq!(failed.usage, some(3, 4));
    assert!(read(json!({"type": "error", "code": "server_error", "message": "m"})).failed);
    assert!(read(json!({"error": {"message": "m"}})).failed);
    assert!(responses_event(Some("error"), br#"{"message":"m"}"#).failed);
    let named = responses_event(Some("response.output_text.delta"), br#"{"delta":"abc"}"#);
    assert!(named.commits);
}

#[test]
fn whole_answers_of_the_responses_api() {
    let body = json!({"status": "completed", "error": null, "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "abc"}]},
        {"type": "function_call", "name": "abc", "arguments": "abc"},
        {"type": "message", "content": [{"type": "refusal", "refusal": "abc"}]}]});
    let reading = answer(Endpoint::Responses, body.to_string().as_bytes()).unwrap();
    assert_eq!(
        (reading.output_millitokens, reading.finished),
        ([estimate::piece("abc"); 4].into_iter().sum(), true)
    );
    let body = json!({"status": "failed", "error": {"code": "server_error"}, "output": []});
    let reading = answer(Endpoint::Responses, body.to_string().as_bytes()).unwrap();
    assert!(reading.failed && !reading.commits);
}
