//! OpenAI's chat completions.

use serde_json::{Value, json};

use super::answer::{Reply, StandInRequest, event};

const ID: &str = "chatcmpl-stand-in";
const CALL: &str = "call_stand_in";

pub fn whole(asked: &StandInRequest) -> Value {
    let message = match &asked.reply {
        Reply::Words(words) => {
            json!({ "role": "assistant", "content": words.concat(), "refusal": null, "annotations": [] })
        }
        Reply::Call { name, arguments } => json!({
            "role": "assistant", "content": null, "refusal": null, "annotations": [],
            "tool_calls": [{
                "id": CALL, "type": "function",
                "function": { "name": name, "arguments": arguments.to_string() },
            }],
        }),
    };
    json!({
        "id": ID, "object": "chat.completion", "created": asked.created, "model": asked.model,
        "choices": [{
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish(asked),
        }],
        "usage": usage(asked), "system_fingerprint": "fp_stand_in",
    })
}

pub fn events(asked: &StandInRequest) -> Vec<String> {
    let mut events = vec![chunk(asked, json!({ "role": "assistant", "content": "" }), None)];
    match &asked.reply {
        Reply::Words(words) => {
            events.extend(words.iter().map(|word| chunk(asked, json!({ "content": word }), None)))
        }
        Reply::Call { name, arguments } => {
            let call =
                |function: Value| json!({ "tool_calls": [{ "index": 0, "function": function }] });
            let mut first = call(json!({ "name": name, "arguments": "" }));
            first["tool_calls"][0]["id"] = CALL.into();
            first["tool_calls"][0]["type"] = "function".into();
            events.push(chunk(asked, first, None));
            let arguments = arguments.to_string();
            events.push(chunk(asked, call(json!({ "arguments": arguments })), None));
        }
    }
    let last = json!({
        "id": ID, "object": "chat.completion.chunk", "created": asked.created,
        "model": asked.model, "choices": [], "usage": usage(asked),
    });
    events.push(chunk(asked, json!({}), Some(finish(asked))) + &event(&last) + "data: [DONE]\n\n");
    events
}

fn chunk(asked: &StandInRequest, delta: Value, finish: Option<&str>) -> String {
    event(&json!({
        "id": ID, "object": "chat.completion.chunk", "created": asked.created,
        "model": asked.model,
        "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }],
    }))
}

fn finish(asked: &StandInRequest) -> &'static str {
    match asked.reply {
        Reply::Call { .. } => "tool_calls",
        Reply::Words(_) if asked.cut => "length",
        Reply::Words(_) => "stop",
    }
}

fn usage(asked: &StandInRequest) -> Value {
    let (input, output) = (asked.input, asked.output());
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
}
