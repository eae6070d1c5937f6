//! The counts of one answer, and whether it is an error inside of a 200.

use crate::{
    kernel::{
        Usage,
        json::{JsonKind, Value},
    },
    meter::json::{count, is_empty},
};

/// An error inside a 200. Gemini wraps it in an array, old vLLM has it at the top, Groq hides it.
pub(super) fn failed(root: Value<'_>) -> bool {
    let Some(object) =
        (if root.kind() == JsonKind::Array { root.items().next() } else { Some(root) })
    else {
        return false;
    };
    object.members().any(|(name, value)| tells_failure(&name.bytes(), value))
}

pub(super) fn tells_failure(name: &[u8], value: Value<'_>) -> bool {
    match name {
        b"error" => is_error(value),
        b"x_groq" => value.get("error").is_some_and(is_error),
        b"object" => value.raw() == br#""error""#,
        _ => false,
    }
}

fn is_error(value: Value<'_>) -> bool {
    match value.kind() {
        JsonKind::Null => false,
        JsonKind::Bool => value.as_bool() == Some(true),
        JsonKind::String => !is_empty(value),
        JsonKind::Number | JsonKind::Array | JsonKind::Object => true,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Counted,
    /// Embeddings: the total is the input.
    Never,
}

/// The counts of one answer as they stand in it; each is looked at once, for most answers have no others.
#[derive(Default)]
struct CountFields<'a> {
    input: Option<Value<'a>>,
    input_details: Option<Value<'a>>,
    output: Option<Value<'a>>,
    output_details: Option<Value<'a>>,
    total: Option<Value<'a>>,
}

impl<'a> CountFields<'a> {
    /// Chat and Responses name the same counts differently; where both stand, Chat's are taken.
    fn of(usage: Value<'a>) -> Self {
        let (mut chat, mut responses) = (Self::default(), Self::default());
        for (name, value) in usage.members() {
            let place = match &*name.bytes() {
                b"prompt_tokens" => &mut chat.input,
                b"prompt_tokens_details" => &mut chat.input_details,
                b"completion_tokens" => &mut chat.output,
                b"completion_tokens_details" => &mut chat.output_details,
                b"total_tokens" => &mut chat.total,
                b"input_tokens" => &mut responses.input,
                b"input_tokens_details" => &mut responses.input_details,
                b"output_tokens" => &mut responses.output,
                b"output_tokens_details" => &mut responses.output_details,
                _ => continue,
            };
            *place = Some(value);
        }
        Self {
            input: chat.input.or(responses.input),
            input_details: chat.input_details.or(responses.input_details),
            output: chat.output.or(responses.output),
            output_details: chat.output_details.or(responses.output_details),
            total: chat.total,
        }
    }
}

/// The total of a usage that contains no other count.
pub(super) fn total_alone(usage: Value<'_>) -> Option<u64> {
    count(usage.get("total_tokens"))
}

/// See the top of this file.
pub(super) fn counts(usage: Value<'_>, output: Output) -> Option<Usage> {
    let named = CountFields::of(usage);
    let detail = |value: Option<Value<'_>>, name: &str| value.and_then(|it| count(it.get(name)));
    let (reported, total) = (count(named.output), count(named.total));
    let input = match (count(named.input), output) {
        (Some(input), _) => input,
        (None, Output::Never) => total?,
        (None, Output::Counted) => total?.checked_sub(reported?)?,
    };
    let rest = total.and_then(|total| total.checked_sub(input));
    let output = match output {
        Output::Never => 0,
        Output::Counted => reported.max(rest)?,
    };
    let cached = detail(named.input_details, "cached_tokens").unwrap_or(0).min(input);
    let written = detail(named.input_details, "cache_write_tokens").unwrap_or(0);
    let reasoning = detail(named.output_details, "reasoning_tokens");
    Some(Usage {
        input,
        output,
        cached,
        cache_write: written.min(input - cached),
        reasoning: reasoning.unwrap_or(0).min(output),
        ..Usage::default()
    })
}
