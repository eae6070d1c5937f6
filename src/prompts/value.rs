//! Reads members of an app's body in any dialect.

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
pub fn text(content: &Value<'_>) -> Option<String> {
    if let Some(text) = content.as_str() {
        return Some(text.into_owned());
    }
    match content.kind() {
        JsonKind::Array => content.items().map(|part| part_text(&part)).collect(),
        JsonKind::Object => part_text(content),
        _ => None,
    }
}

fn part_text(part: &Value<'_>) -> Option<String> {
    if part.kind() != JsonKind::Object {
        return None;
    }
    let mut text = None;
    for (name, value) in part.members() {
        match &*name.decoded() {
            "text" => text = Some(value.as_str()?.into_owned()),
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
