//! Reads members of an app's body in any dialect.

use std::borrow::Cow;

use gatekeeper_filters::kernel::json::{JsonKind, Value};

/// Left out, it would mean the same.
pub fn is_nothing(value: &Value<'_>) -> bool {
    match value.kind() {
        JsonKind::Null => true,
        JsonKind::Bool => value.as_bool() == Some(false),
        JsonKind::Array => value.items().next().is_none(),
        JsonKind::Object => value.members().next().is_none(),
        JsonKind::String | JsonKind::Number => false,
    }
}

/// A text, or parts that are text and nothing else.
pub fn text<'a>(content: &Value<'a>) -> Option<Cow<'a, str>> {
    if let Some(text) = content.as_str() {
        return Some(text);
    }
    match content.kind() {
        JsonKind::Array => {
            let parts = content.items().map(|part| part_text(&part));
            parts.collect::<Option<String>>().map(Cow::Owned)
        }
        JsonKind::Object => part_text(content),
        _ => None,
    }
}

fn part_text<'a>(part: &Value<'a>) -> Option<Cow<'a, str>> {
    if part.kind() != JsonKind::Object {
        return None;
    }
    let mut text = None;
    for (name, value) in part.members() {
        match &*name.decoded() {
            "text" => text = Some(value.as_str()?),
            "type" => {
                let kind = value.as_str()?;
                if !["text", "input_text", "output_text"].contains(&&*kind) {
                    return None;
                }
            }
            // A hint for a provider's cache, which the gateway's own text would be in front of.
            "cache_control" => {}
            _ if is_nothing(&value) => {}
            _ => return None,
        }
    }
    text
}
