//! Reads answers in OpenAI's dialect: OpenAI itself, Groq, Gemini's compatible endpoint, OpenRouter,
//! vLLM, llama.cpp and the like.
//!
//! Providers are read leniently: what these readers do not understand sets nothing, and its bytes still
//! go to the app. Data that is no JSON gives an empty [`Reading`].
//!
//! # What counts as usage
//! A count is a plain integer from 0 to 2^53. Negative, fractional and larger numbers and strings count as
//! missing, so that the answer is estimated rather than charged an absurd amount. An explicit 0 is 0, but
//! an output of 0 beside text is no count ([`Metered::counted`]). The input must be known, or follow from
//! the total; the output is the larger of the reported one and total − input, because Gemini leaves its
//! thinking out of the reported one. A total alone is kept as one. Some servers report the counts in the
//! choice.
//!
//! [`Metered::counted`]: crate::kernel::Metered::counted
//! Cached tokens are at most the input and reasoning tokens at most the output.

mod counts;
mod responses;
pub mod stream;
#[cfg(test)]
mod tests;

use self::counts::{Output, counts, failed, tells_failure, total_alone};
use super::{
    Output as Carries, Reading, StreamEnd,
    estimate::Estimate,
    json::{NotJson, is_empty, member_text, read, read_event, text},
};
use crate::kernel::{
    Endpoint,
    json::{JsonKind, Value},
};

fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

/// One event of a `/v1/chat/completions` stream.
pub fn chat_event(data: &[u8]) -> Reading {
    if is_done(data) {
        return Reading { done: true, ..Reading::default() };
    }
    read_event(data, chat)
}

/// One event of a `/v1/responses` stream. The type within the data wins over the event's name.
pub fn responses_event(event_name: Option<&str>, data: &[u8]) -> Reading {
    if is_done(data) {
        return Reading { done: true, ..Reading::default() };
    }
    read_event(data, |root| responses::event(event_name, root))
}

/// A whole JSON answer of an endpoint in this dialect. One that neither commits nor failed holds no answer
/// at all (`{}`).
///
/// # Errors
/// The body is no JSON.
pub fn answer(endpoint: Endpoint, body: &[u8]) -> Result<Reading, NotJson> {
    read(
        body,
        match endpoint {
            Endpoint::Chat => chat,
            Endpoint::Responses => responses::answer,
            _ => embeddings,
        },
    )
}

fn embeddings(root: Value<'_>) -> Reading {
    let vectors = root.get("data").is_some_and(|data| data.kind() == JsonKind::Array);
    let failed = failed(root);
    Reading {
        usage: root.get("usage").and_then(|usage| counts(usage, Output::Never)),
        commits: vectors && !failed,
        output: if vectors { Carries::Answer } else { Carries::None },
        finished: vectors,
        failed,
        ..Reading::default()
    }
}

/// A chunk of a stream, or a whole answer: they differ only in `delta` and `message`.
fn chat(root: Value<'_>) -> Reading {
    if root.kind() == JsonKind::Array {
        return Reading { failed: failed(root), ..Reading::default() };
    }
    let mut reading = Reading::default();
    let (mut choices, mut usage, mut groq) = (None, None, None);
    for (name, value) in root.members() {
        match &*name.bytes() {
            b"choices" => choices = Some(value),
            b"usage" => usage = Some(value),
            b"x_groq" => groq = value.get("usage"),
            _ => {}
        }
        reading.failed |= tells_failure(&name.bytes(), value);
    }
    let reported =
        |usage: Option<Value<'_>>| usage.and_then(|usage| counts(usage, Output::Counted));
    reading.usage = reported(usage).or_else(|| reported(groq));
    if reading.usage.is_none() {
        reading.total = usage.or(groq).and_then(total_alone);
    }
    // The text of a whole answer need not be weighed beside a count, so the count is read first.
    choices.iter().flat_map(Value::items).for_each(|choice| read_choice(choice, &mut reading));
    let is_empty =
        |list: Value<'_>| list.kind() == JsonKind::Array && list.items().next().is_none();
    let no_choices = choices.is_some_and(is_empty);
    let has_usage = usage.is_some_and(|usage| usage.kind() == JsonKind::Object);
    reading.usage_only = no_choices && has_usage && !reading.failed;
    reading.commits &= !reading.failed;
    reading
}

fn read_choice(choice: Value<'_>, reading: &mut Reading) {
    for (name, value) in choice.members() {
        match &*name.bytes() {
            b"delta" => read_message(value, false, reading),
            b"message" => {
                let is_counted = reading.usage.is_some_and(|usage| usage.output > 0);
                read_message(value, is_counted, reading);
            }
            b"usage" if reading.usage.is_none() => reading.usage = counts(value, Output::Counted),
            // Some servers send "" where others send null.
            b"finish_reason" if !is_empty(value) => {
                reading.finished = true;
                reading.commits = true;
                reading.ending =
                    value.as_str().map_or(StreamEnd::Other, |it| StreamEnd::of(it.as_bytes()));
            }
            _ => {}
        }
    }
}

fn read_message(message: Value<'_>, is_counted: bool, reading: &mut Reading) {
    // Some servers state the same reasoning under both names.
    let mut reasoning = Estimate::default();
    for (name, value) in message.members() {
        let weigh: fn(Value<'_>) -> Estimate = match &*name.bytes() {
            b"content" | b"refusal" | b"reasoning" | b"reasoning_content" => text,
            b"tool_calls" => |calls| calls.items().map(call).sum(),
            b"function_call" => function,
            b"audio" => |audio| member_text(audio, "transcript"),
            // Pictures (OpenRouter): counted by the provider or not at all.
            b"images" => |_| Estimate::default(),
            // `role` and the like are no output.
            _ => continue,
        };
        if is_empty(value) {
            continue;
        }
        reading.commits = true;
        let thinks = matches!(&*name.bytes(), b"reasoning" | b"reasoning_content");
        let carries = if thinks { Carries::Reasoning } else { Carries::Answer };
        reading.output = reading.output.max(carries);
        match &*name.bytes() {
            _ if is_counted => {}
            _ if thinks => reasoning = weigh(value).max(reasoning),
            _ => reading.output_millitokens += weigh(value),
        }
    }
    reading.output_millitokens += reasoning;
}

fn call(call: Value<'_>) -> Estimate {
    ["function", "custom"].iter().filter_map(|kind| call.get(kind)).map(function).sum()
}

fn function(function: Value<'_>) -> Estimate {
    ["name", "arguments", "input"].iter().map(|name| member_text(function, name)).sum()
}
