//! Anthropic's messages.

use serde_json::{Value, json};

use super::answer::{Reply, StandInRequest, named};

const CALL: &str = "toolu_stand_in";

pub fn whole(asked: &StandInRequest) -> Value {
    let block = match &asked.reply {
        Reply::Words(words) => json!({ "type": "text", "text": words.concat() }),
        Reply::Call { name, arguments } => {
            json!({ "type": "tool_use", "id": CALL, "name": name, "input": arguments })
        }
    };
    let usage = json!({ "input_tokens": asked.input, "output_tokens": asked.output() });
    message(asked, &[block], finish(asked).into(), usage)
}

fn message(asked: &StandInRequest, content: &[Value], stop: Value, usage: Value) -> Value {
    json!({
        "id": "msg_stand_in", "type": "message", "role": "assistant", "model": asked.model,
        "content": content, "stop_reason": stop, "stop_sequence": null, "usage": usage,
    })
}

fn finish(asked: &StandInRequest) -> &'static str {
    match asked.reply {
        Reply::Call { .. } => "tool_use",
        Reply::Words(_) if asked.cut => "max_tokens",
        Reply::Words(_) => "end_turn",
    }
}

pub fn events(asked: &StandInRequest) -> Vec<String> {
    let usage = json!({ "input_tokens": asked.input, "output_tokens": 1 });
    let begun = message(asked, &[], Value::Null, usage);
    let block = match &asked.reply {
        Reply::Words(_) => json!({ "type": "text", "text": "" }),
        Reply::Call { name, .. } => {
            json!({ "type": "tool_use", "id": CALL, "name": name, "input": {} })
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
    let end = json!({ "stop_reason": finish(asked), "stop_sequence": null });
    let usage = json!({ "output_tokens": asked.output() });
    events.push(
        named("content_block_stop", json!({ "index": 0 }))
            + &named("message_delta", json!({ "delta": end, "usage": usage }))
            + &named("message_stop", json!({})),
    );
    events
}
