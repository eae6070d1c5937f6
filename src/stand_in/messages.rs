//! Anthropic's messages.

use serde_json::{Value, json};

use super::answer::{Reply, StandInRequest, named};

const CALL: &str = "toolu_stand_in";

pub fn whole(asked: &StandInRequest) -> Value {
    let block = match &asked.reply {
        Reply::Words(words) => {
            json!({ "type": "text", "text": words.concat(), "citations": [] })
        }
        Reply::Call { name, arguments } => {
            json!({
                "type": "tool_use", "id": CALL, "name": name, "input": arguments, "caller": { "type": "direct" },
            })
        }
    };
    let mut message = message(asked, &[block], usage(asked.input, asked.output()));
    message["stop_reason"] = finish(asked).into();
    message["stop_sequence"] = json!(asked.stopped);
    message
}

/// One that has not ended yet.
fn message(asked: &StandInRequest, content: &[Value], usage: Value) -> Value {
    json!({
        "id": "msg_stand_in", "type": "message", "role": "assistant", "model": asked.model,
        "content": content, "stop_reason": null, "stop_sequence": null, "stop_details": null,
        "container": null, "usage": usage,
    })
}

fn usage(input: u64, output: u64) -> Value {
    json!({
        "input_tokens": input, "output_tokens": output, "output_tokens_details": null,
        "cache_creation": null, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "inference_geo": null, "server_tool_use": null, "service_tier": "standard",
    })
}

fn finish(asked: &StandInRequest) -> &'static str {
    match asked.reply {
        Reply::Call { .. } => "tool_use",
        Reply::Words(_) if asked.cut => "max_tokens",
        Reply::Words(_) if asked.stopped.is_some() => "stop_sequence",
        Reply::Words(_) => "end_turn",
    }
}

pub fn events(asked: &StandInRequest) -> Vec<String> {
    let begun = message(asked, &[], usage(asked.input, 1));
    let block = match &asked.reply {
        Reply::Words(_) => json!({ "type": "text", "text": "", "citations": [] }),
        Reply::Call { name, .. } => {
            json!({ "type": "tool_use", "id": CALL, "name": name, "input": {}, "caller": { "type": "direct" } })
        }
    };
    let delta = |delta: Value| named("content_block_delta", json!({ "index": 0, "delta": delta }));
    let opening = named("message_start", json!({ "message": begun }))
        + &named("content_block_start", json!({ "index": 0, "content_block": block }));
    let mut events = vec![opening];
    match &asked.reply {
        Reply::Words(words) => events
            .extend(words.iter().map(|word| delta(json!({ "type": "text_delta", "text": word })))),
        Reply::Call { arguments, .. } => {
            let json = arguments.to_string();
            events.push(delta(json!({ "type": "input_json_delta", "partial_json": json })));
        }
    }
    let end = json!({
        "stop_reason": finish(asked), "stop_sequence": asked.stopped, "stop_details": null, "container": null,
    });
    let usage = json!({
        "output_tokens": asked.output(), "output_tokens_details": null,
        "input_tokens": asked.input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "server_tool_use": null,
    });
    events.push(
        named("content_block_stop", json!({ "index": 0 }))
            + &named("message_delta", json!({ "delta": end, "usage": usage }))
            + &named("message_stop", json!({})),
    );
    events
}
