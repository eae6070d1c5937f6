//! One of Anthropic's messages as a chat completion.

use bytes::Bytes;
use gatekeeper_filters::kernel::{
    Usage,
    json::{ParseError, Reader, Value},
};

use super::{finish_reason, write::JsonWriter, write_usage};

/// `usage` is what the meter read in it; `created` in Unix seconds.
///
/// # Errors
/// The body is no JSON.
pub fn answer(body: &[u8], usage: Option<&Usage>, created: u64) -> Result<Bytes, ParseError> {
    let mut reader = Reader::lenient();
    let message = reader.parse(body)?;
    let told = |name: &str| message.get(name).and_then(|value| value.as_str());
    let mut json = JsonWriter::default();
    json.raw("{\"id\":").string(&told("id").unwrap_or_default());
    json.raw(format!(",\"object\":\"chat.completion\",\"created\":{created},\"model\":"));
    json.string(&told("model").unwrap_or_default());
    json.raw(",\"choices\":[{\"index\":0,\"message\":");
    write_message(&mut json, message.get("content"));
    let reason = finish_reason(told("stop_reason").as_deref());
    json.raw(",\"logprobs\":null,\"finish_reason\":").string(reason).raw("}]");
    if let Some(usage) = usage {
        json.raw(",\"usage\":");
        write_usage(&mut json, usage);
    }
    json.raw("}");
    Ok(json.finish())
}

fn write_message(json: &mut JsonWriter, content: Option<Value<'_>>) {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for block in content.iter().flat_map(Value::items) {
        let told = |name: &str| block.get(name).and_then(|value| value.as_str());
        match told("type").as_deref() {
            Some("text") => text.push_str(&told("text").unwrap_or_default()),
            Some("thinking") => thinking.push_str(&told("thinking").unwrap_or_default()),
            Some("tool_use") => calls.push(block),
            _ => {}
        }
    }
    json.raw("{\"role\":\"assistant\",\"content\":");
    if text.is_empty() && !calls.is_empty() {
        json.raw("null");
    } else {
        json.string(&text);
    }
    json.raw(",\"refusal\":null");
    if !thinking.is_empty() {
        json.raw(",\"reasoning_content\":").string(&thinking);
    }
    if !calls.is_empty() {
        json.raw(",\"tool_calls\":").list(calls, |json, call| {
            json.raw("{");
            write_call(json, &call);
            json.raw(",\"arguments\":").string(&arguments(&call)).raw("}}");
        });
    }
    json.raw("}");
}

/// The members of a call up to its name; the function is left open for its arguments.
pub(super) fn write_call(json: &mut JsonWriter, block: &Value<'_>) {
    let told = |name: &str| block.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    json.raw("\"id\":").string(&told("id"));
    json.raw(",\"type\":\"function\",\"function\":{\"name\":").string(&told("name"));
}

/// The arguments of a call as they were written.
pub(super) fn arguments(block: &Value<'_>) -> String {
    match block.get("input").filter(|input| !input.is_null()) {
        Some(input) => String::from_utf8_lossy(input.raw()).into_owned(),
        None => "{}".into(),
    }
}
