//! OpenAI's responses.

use serde_json::{Value, json};

use super::answer::{Reply, StandInRequest, named};

const ID: &str = "resp_stand_in";
const MESSAGE: &str = "msg_stand_in";
const CALL: &str = "fc_stand_in";

pub fn whole(asked: &StandInRequest) -> Value {
    let (status, why) = end(asked);
    response(asked, status, why, &[item(asked, status)], usage(asked))
}

fn end(asked: &StandInRequest) -> (&'static str, Value) {
    match asked.cut {
        true => ("incomplete", json!({ "reason": "max_output_tokens" })),
        false => ("completed", Value::Null),
    }
}

fn response(
    asked: &StandInRequest,
    status: &str,
    why: Value,
    output: &[Value],
    usage: Value,
) -> Value {
    json!({
        "id": ID, "object": "response", "created_at": asked.created, "status": status,
        "completed_at": Some(asked.created).filter(|_| status != "in_progress"),
        "background": false, "frequency_penalty": 0, "presence_penalty": 0, "top_logprobs": 0,
        "max_output_tokens": null, "max_tool_calls": null, "prompt_cache_key": null,
        "safety_identifier": null, "service_tier": "default", "error": null, "incomplete_details": why, "instructions": null, "metadata": {},
        "model": asked.model, "output": output, "parallel_tool_calls": true,
        "previous_response_id": null, "reasoning": { "effort": null, "summary": null },
        "store": false, "temperature": 1, "text": { "format": { "type": "text" } },
        "tool_choice": "auto", "tools": [], "top_p": 1, "truncation": "disabled", "usage": usage,
    })
}

fn item(asked: &StandInRequest, status: &str) -> Value {
    match &asked.reply {
        Reply::Words(words) => json!({
            "id": MESSAGE, "type": "message", "status": status, "role": "assistant",
            "content": [part(&words.concat())],
        }),
        Reply::Call { name, arguments } => call(name, &arguments.to_string(), status),
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn call(name: &str, arguments: &str, status: &str) -> Value {
    json!({
        "id": CALL, "type": "function_call", "status": status, "call_id": "call_stand_in",
        "name": name, "arguments": arguments,
    })
}

fn usage(asked: &StandInRequest) -> Value {
    let (input, output) = (asked.input, asked.output());
    json!({
        "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": input + output,
    })
}

/// Numbers the events.
#[derive(Default)]
struct Numbered {
    next: u64,
}

impl Numbered {
    fn event(&mut self, kind: &str, mut data: Value) -> String {
        data["sequence_number"] = self.next.into();
        self.next += 1;
        named(&format!("response.{kind}"), data)
    }
}

pub fn events(asked: &StandInRequest) -> Vec<String> {
    let mut numbered = Numbered::default();
    let begun = response(asked, "in_progress", Value::Null, &[], Value::Null);
    let opening = numbered.event("created", json!({ "response": begun }))
        + &numbered.event("in_progress", json!({ "response": begun }));
    let mut events = vec![opening];
    match &asked.reply {
        Reply::Words(words) => message(&mut numbered, words, &mut events),
        Reply::Call { name, arguments } => {
            let arguments = arguments.to_string();
            let at = json!({ "output_index": 0, "item": call(name, "", "in_progress") });
            events.push(numbered.event("output_item.added", at));
            let at = json!({ "item_id": CALL, "output_index": 0, "delta": arguments });
            events.push(numbered.event("function_call_arguments.delta", at));
            let at =
                json!({ "item_id": CALL, "output_index": 0, "name": name, "arguments": arguments });
            events.push(numbered.event("function_call_arguments.done", at));
        }
    }
    let (status, _) = end(asked);
    let done = json!({ "output_index": 0, "item": item(asked, status) });
    let closing = numbered.event("output_item.done", done);
    events.push(closing + &numbered.event(status, json!({ "response": whole(asked) })));
    events
}

fn message(numbered: &mut Numbered, words: &[String], events: &mut Vec<String>) {
    let empty = json!({
        "id": MESSAGE, "type": "message", "status": "in_progress", "role": "assistant", "content": [],
    });
    let opened = numbered.event("output_item.added", json!({ "output_index": 0, "item": empty }));
    let at = |more: Value| {
        let mut at = json!({ "item_id": MESSAGE, "output_index": 0, "content_index": 0 });
        if let (Some(at), Some(more)) = (at.as_object_mut(), more.as_object()) {
            at.extend(more.clone());
        }
        at
    };
    events.push(opened + &numbered.event("content_part.added", at(json!({ "part": part("") }))));
    for word in words {
        let delta = at(json!({ "delta": word, "logprobs": [] }));
        events.push(numbered.event("output_text.delta", delta));
    }
    let text = words.concat();
    let done = numbered.event("output_text.done", at(json!({ "text": text, "logprobs": [] })));
    events.push(done + &numbered.event("content_part.done", at(json!({ "part": part(&text) }))));
}
