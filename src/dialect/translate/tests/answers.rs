//! Answers: whole ones and streams.

use bytes::Bytes;
use gatekeeper_filters::{kernel::Endpoint, meter};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{dialect::translate::answer::answer, upstream::stream_events::StreamEvents};

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/anthropic/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn whole(message: &str) -> Value {
    let usage = meter::answer(Endpoint::Messages, message.as_bytes()).unwrap().usage;
    serde_json::from_slice(&answer(message.as_bytes(), usage.as_ref(), 7).unwrap()).unwrap()
}

/// What goes to the app, and whether the stream broke.
fn streamed(chunks: &[&[u8]], wants_usage: bool) -> (String, bool) {
    let mut events = StreamEvents::new(Endpoint::Messages, wants_usage).translated(7);
    for chunk in chunks {
        events.take(Bytes::copy_from_slice(chunk), |_| {});
    }
    if !events.is_over() {
        events.end(|_| {});
    }
    let broken = events.broken().is_some();
    (String::from_utf8(events.out.take().to_vec()).unwrap(), broken)
}

fn chunks(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// The message that an SDK makes of chunks.
fn joined(chunks: &[Value]) -> Value {
    let (mut text, mut thinking, mut calls, mut reason) =
        (String::new(), String::new(), Vec::new(), Value::Null);
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let delta = &choice["delta"];
        text += delta["content"].as_str().unwrap_or_default();
        thinking += delta["reasoning_content"].as_str().unwrap_or_default();
        for part in delta["tool_calls"].as_array().unwrap_or(&Vec::new()) {
            let index = part["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                calls.push(
                    json!({ "id": part["id"], "name": part["function"]["name"], "arguments": "" }),
                );
            }
            let more = part["function"]["arguments"].as_str().unwrap();
            calls[index]["arguments"] =
                format!("{}{more}", calls[index]["arguments"].as_str().unwrap()).into();
        }
        if !choice["finish_reason"].is_null() {
            assert_eq!((&reason, delta), (&Value::Null, &json!({})), "one finish, by itself");
            reason = choice["finish_reason"].clone();
        }
    }
    json!({ "text": text, "thinking": thinking, "calls": calls, "reason": reason })
}

/// The same of a whole answer.
fn told(completion: &Value) -> Value {
    let message = &completion["choices"][0]["message"];
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let call = |call: &Value| json!({ "id": call["id"], "name": call["function"]["name"], "arguments": call["function"]["arguments"] });
    json!({
        "text": message["content"].as_str().unwrap_or_default(),
        "thinking": message["reasoning_content"].as_str().unwrap_or_default(),
        "calls": calls.iter().map(call).collect::<Vec<_>>(),
        "reason": completion["choices"][0]["finish_reason"],
    })
}

#[test]
fn a_message_is_a_completion() {
    assert_eq!(
        whole(&fixture("anthropic_messages.json")),
        json!({
            "id": "msg_01Qx7LkV3mTzP9wYcR5nHb2D", "object": "chat.completion", "created": 7,
            "model": "claude-sonnet-5",
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "stop",
                "message": {
                    "role": "assistant", "content": "Reykjavík is the capital of Iceland.", "refusal": null,
                },
            }],
            "usage": {
                "prompt_tokens": 1201, "completion_tokens": 14, "total_tokens": 1215,
                "prompt_tokens_details": { "cached_tokens": 1180 },
                "completion_tokens_details": { "reasoning_tokens": 0 },
            },
        })
    );
}

#[test]
fn calls_and_thinking_have_their_places() {
    let message = json!({ "stop_reason": "tool_use", "content": [
        { "type": "thinking", "thinking": "Hm.", "signature": "x" },
        { "type": "tool_use", "id": "toolu_1", "name": "find", "input": { "b": 1, "a": "\"" } },
        { "type": "tool_use", "id": "toolu_2", "name": "now" },
        { "type": "server_tool_use", "id": "srv", "name": "web_search", "input": {} },
    ]});
    let said = &whole(&message.to_string())["choices"][0];
    assert_eq!(said["finish_reason"], "tool_calls");
    assert_eq!(said["message"]["content"], Value::Null);
    assert_eq!(said["message"]["reasoning_content"], "Hm.");
    let call = |id: &str, name: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    let first = message["content"][1]["input"].to_string();
    assert_eq!(
        said["message"]["tool_calls"],
        json!([call("toolu_1", "find", &first), call("toolu_2", "now", "{}")])
    );
}

#[test]
fn every_reason_to_stop_has_a_word() {
    for (reason, word) in [
        (json!("end_turn"), "stop"),
        (json!("stop_sequence"), "stop"),
        (json!("pause_turn"), "stop"),
        (json!("max_tokens"), "length"),
        (json!("model_context_window_exceeded"), "length"),
        (json!("tool_use"), "tool_calls"),
        (json!("refusal"), "content_filter"),
        (json!(null), "stop"),
    ] {
        let message =
            json!({ "content": [{ "type": "text", "text": "a" }], "stop_reason": reason });
        let completion = whole(&message.to_string());
        assert_eq!(completion["choices"][0]["finish_reason"], word);
        assert!(completion.get("usage").is_none());
    }
}

#[test]
fn a_stream_is_chunks_and_its_usage_is_for_apps_that_ask() {
    let stream = fixture("anthropic_stream.sse");
    let (out, broken) = streamed(&[stream.as_bytes()], false);
    assert!(!broken && out.ends_with("data: [DONE]\n\n"));
    let plain = chunks(&out);
    assert_eq!(plain[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    assert_eq!(plain.len(), 5, "role, three pieces of text, finish: {out}");
    let said = json!({
        "text": "Reykjavík is the capital of Iceland.", "thinking": "", "calls": [], "reason": "stop",
    });
    assert_eq!(joined(&plain), said);
    for chunk in &plain {
        assert_eq!(
            (&chunk["id"], &chunk["created"]),
            (&json!("msg_01Hb8YtW2kRq5sNvXzM4cLpJ"), &json!(7))
        );
        assert_eq!(
            (&chunk["object"], &chunk["model"]),
            (&json!("chat.completion.chunk"), &json!("claude-sonnet-5"))
        );
    }
    let (out, _) = streamed(&[stream.as_bytes()], true);
    let asked = chunks(&out);
    assert_eq!(asked[..5], plain[..]);
    assert_eq!(asked[5]["choices"], json!([]));
    assert_eq!(asked[5]["usage"], whole(&fixture("anthropic_messages.json"))["usage"]);
}

#[test]
fn a_stream_that_breaks_has_no_clean_end() {
    let stream = fixture("anthropic_stream_overloaded.sse");
    let (out, broken) = streamed(&[stream.as_bytes()], true);
    assert!(
        broken && out.contains("Reykjav") && !out.contains("[DONE]") && !out.contains("verloaded")
    );
    let stream = fixture("anthropic_stream.sse");
    let cut = stream.find("event: message_stop").unwrap();
    let (out, broken) = streamed(&[&stream.as_bytes()[..cut]], true);
    assert!(!broken && out.ends_with("data: [DONE]\n\n"), "its stop reason was said");
    let cut = stream.find("event: message_delta").unwrap();
    let (out, broken) = streamed(&[&stream.as_bytes()[..cut]], true);
    assert!(broken && !out.contains("[DONE]"));
}

#[test]
fn only_output_commits() {
    let stream = fixture("anthropic_stream.sse");
    let first = stream.find("event: content_block_delta").unwrap();
    let mut events = StreamEvents::new(Endpoint::Messages, false).translated(7);
    events.take(Bytes::copy_from_slice(&stream.as_bytes()[..first]), |_| {});
    assert!(!events.commits && !events.out.is_empty(), "the role is held");
    events.take(Bytes::copy_from_slice(&stream.as_bytes()[first..]), |_| {});
    assert!(events.commits);
}

#[test]
fn a_server_that_leaves_events_out_is_understood() {
    let event =
        |data: Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap());
    let block = json!({ "type": "tool_use", "id": "t", "name": "f", "input": { "a": 1 } });
    let stream = [
        event(json!({ "type": "content_block_start", "index": 0, "content_block": block })),
        event(json!({ "type": "message_stop" })),
    ]
    .concat();
    let (out, broken) = streamed(&[stream.as_bytes()], true);
    let call = json!({ "id": "t", "name": "f", "arguments": "{\"a\":1}" });
    assert!(!broken);
    assert_eq!(
        joined(&chunks(&out)),
        json!({ "text": "", "thinking": "", "calls": [call], "reason": "stop" })
    );
}

fn block() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<String>().prop_map(|text| json!({ "type": "text", "text": text })),
        any::<String>().prop_map(|text| json!({ "type": "thinking", "thinking": text })),
        ("[a-z]{1,8}", prop::collection::btree_map("[a-z]{1,3}", any::<String>(), 0..3)).prop_map(
            |(id, input)| json!({ "type": "tool_use", "id": id, "name": "f", "input": input })
        ),
    ]
}

/// A message as Anthropic streams it, each text in pieces of `size` characters.
fn events(message: &Value, size: usize) -> String {
    let mut out = String::new();
    let mut event = |data: Value| {
        out += &format!("event: {}\r\ndata: {data}\r\n\r\n", data["type"].as_str().unwrap());
    };
    let start =
        json!({ "id": "m", "model": "c", "usage": { "input_tokens": 3, "output_tokens": 1 } });
    event(json!({ "type": "message_start", "message": start }));
    for (index, block) in message["content"].as_array().unwrap().iter().enumerate() {
        let kind = block["type"].as_str().unwrap();
        let (empty, name, kind, text) = match kind {
            "text" => (
                json!({ "type": kind, "text": "" }),
                "text",
                "text_delta",
                block["text"].as_str().unwrap().to_owned(),
            ),
            "thinking" => (
                json!({ "type": kind, "thinking": "" }),
                "thinking",
                "thinking_delta",
                block["thinking"].as_str().unwrap().to_owned(),
            ),
            _ => {
                let empty =
                    json!({ "type": kind, "id": block["id"], "name": block["name"], "input": {} });
                let input = block["input"].to_string();
                (
                    empty,
                    "partial_json",
                    "input_json_delta",
                    if input == "{}" { String::new() } else { input },
                )
            }
        };
        event(json!({ "type": "content_block_start", "index": index, "content_block": empty }));
        event(json!({ "type": "ping" }));
        let letters: Vec<char> = text.chars().collect();
        event(
            json!({ "type": "content_block_delta", "index": index, "delta": { "type": kind, name: "" } }),
        );
        for piece in letters.chunks(size) {
            let piece: String = piece.iter().collect();
            event(
                json!({ "type": "content_block_delta", "index": index, "delta": { "type": kind, name: piece } }),
            );
        }
        event(json!({ "type": "content_block_stop", "index": index }));
    }
    let delta = json!({ "stop_reason": message["stop_reason"], "stop_sequence": null });
    event(json!({ "type": "message_delta", "delta": delta, "usage": message["usage"] }));
    event(json!({ "type": "message_stop" }));
    out
}

proptest! {
    /// A stream yields what the whole answer yields, however it was split in transit.
    #[test]
    fn a_stream_says_what_the_whole_answer_says(
        blocks in prop::collection::vec(block(), 0..5),
        reason in prop::sample::select(vec!["end_turn", "tool_use", "max_tokens", "refusal"]),
        size in 1..5usize,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let usage = json!({ "input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 9 });
        let message = json!({ "id": "m", "model": "c", "content": blocks, "stop_reason": reason, "usage": usage });
        let stream = events(&message, size).into_bytes();
        let (out, broken) = streamed(&[&stream], true);
        prop_assert!(!broken);
        let completion = whole(&message.to_string());
        let said = chunks(&out);
        prop_assert_eq!(joined(&said), told(&completion));
        prop_assert_eq!(&said.last().unwrap()["usage"], &completion["usage"]);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        prop_assert_eq!(streamed(&pieces, true), (out, false));
    }
}
