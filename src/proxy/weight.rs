//! What a request weighs: its texts in estimated tokens, its images, and whatever else has to be allowed.

use std::sync::Arc;

use gatekeeper_filters::{
    kernel::json::{Kind, Value},
    meter::estimate,
};

fn is(value: &Value<'_>, text: &str) -> bool {
    value.as_str().is_some_and(|value| value == text)
}

/// A kind of item that names what a provider keeps.
pub const ITEM_REFERENCE: &str = "item_reference";

/// The items of a conversation whose tools all run in the app. Calls of hosted tools may be no more than the id
/// of what is kept in the seller's account.
const OWN_ITEMS: [&str; 6] = [
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
];

/// What an item of reasoning says for itself; without any of it its id has to lead to the rest.
const REASONING: [&str; 3] = ["encrypted_content", "summary", "content"];

/// Anything but an empty list.
fn is_filled(value: Value<'_>) -> bool {
    value.kind() != Kind::Array || value.items().next().is_some()
}

/// Adds up the input of a request.
#[derive(Default)]
pub struct Weight {
    millitokens: u64,
    pub images: u64,
    /// Kinds of parts beside text and images; never more than [`MOST_KINDS`] and one.
    pub media: Vec<Arc<str>>,
}

/// Kinds that one request may have. Each new one is compared with those before: a body made of nothing
/// but kinds would keep a thread busy for minutes.
pub const MOST_KINDS: usize = 16;

impl Weight {
    pub fn tokens(&self) -> u64 {
        estimate::tokens(self.millitokens).saturating_add(estimate::REQUEST_TOKENS)
    }

    pub fn text(&mut self, value: &Value<'_>) {
        match value.as_str() {
            Some(text) => self.millitokens += estimate::text(&text),
            None => self.raw(value),
        }
    }

    /// Anything that is no plain text is weighed as it stands.
    pub fn raw(&mut self, value: &Value<'_>) {
        let text = String::from_utf8_lossy(value.raw());
        self.millitokens += estimate::text(&text);
    }

    /// One string, or one list of token numbers.
    pub fn embedded(&mut self, value: &Value<'_>) {
        match value.kind() {
            Kind::Array => self.millitokens += 1000 * value.items().count() as u64,
            Kind::Number => self.millitokens += 1000,
            _ => self.text(value),
        }
    }

    /// A message, or another item that stands in its place.
    pub fn message(&mut self, message: &Value<'_>) {
        self.millitokens += 1000 * estimate::MESSAGE_TOKENS;
        for (name, value) in message.members() {
            match &*name.decoded() {
                "role" | "type" | "id" | "status" => {}
                "content" | "output" => self.parts(&value),
                _ => self.text(&value),
            }
        }
    }

    /// An item of OpenAI's responses. One with no more than an id, and a file by its id, name state that is
    /// kept in the seller's account.
    pub fn item(&mut self, item: &Value<'_>) {
        let told = |name: &str| item.get(name).filter(|value| !value.is_null());
        let kind = told("type");
        let is_whole = match kind.and_then(|kind| kind.as_str()).as_deref() {
            Some("reasoning") => REASONING.iter().any(|name| told(name).is_some_and(is_filled)),
            kind => kind.is_some() || told("role").is_some(),
        };
        if !is_whole {
            self.other(ITEM_REFERENCE);
        }
        if let Some(kind) = kind.and_then(|kind| kind.as_str())
            && !OWN_ITEMS.contains(&&*kind)
        {
            self.other(&kind);
        }
        if told("file_id").is_some() {
            self.other("file_id");
        }
        self.message(item);
    }

    /// Text, or parts. One that stands alone is looked at like one in a list: servers differ in what they take.
    pub fn parts(&mut self, parts: &Value<'_>) {
        match parts.kind() {
            Kind::Array => parts.items().for_each(|part| self.parts(&part)),
            Kind::Object => self.part(parts),
            _ => self.text(parts),
        }
    }

    fn part(&mut self, part: &Value<'_>) {
        let kind = part.get("type").and_then(|kind| kind.as_str());
        let source = part.get("source");
        let file = part.get("file_id").or_else(|| source.and_then(|source| source.get("file_id")));
        if file.is_some_and(|id| !id.is_null()) {
            self.other("file_id");
        }
        match kind.as_deref() {
            Some("image_url" | "input_image" | "image") => self.images += 1,
            // Anthropic's blocks. A source may be a file that is kept in the seller's account.
            Some("tool_use") => self.raw(part),
            Some("tool_result") => part.get("content").iter().for_each(|parts| self.parts(parts)),
            Some("thinking" | "redacted_thinking") => {
                let text = part.get("thinking").or_else(|| part.get("data"));
                text.iter().for_each(|text| self.text(text));
            }
            Some("search_result") => self.search_result(part),
            Some("document") => match source.and_then(|source| source.get("type")) {
                Some(kind) if is(&kind, "text") => self.raw(part),
                _ => self.other("file"),
            },
            Some("text" | "input_text" | "output_text" | "refusal" | "summary_text") => {
                let text = part.get("text").or_else(|| part.get("refusal"));
                text.iter().for_each(|text| self.text(text));
            }
            Some(other) => self.other(other),
            None => self.raw(part),
        }
    }

    /// One of Gemini's contents.
    pub fn content(&mut self, content: &Value<'_>) {
        self.millitokens += 1000 * estimate::MESSAGE_TOKENS;
        match content.kind() {
            Kind::Object => content.get("parts").iter().for_each(|parts| self.gemini_parts(parts)),
            _ => self.raw(content),
        }
    }

    /// Google takes one part for a list of one.
    fn gemini_parts(&mut self, parts: &Value<'_>) {
        match parts.kind() {
            Kind::Array => parts.items().for_each(|part| self.gemini_parts(&part)),
            Kind::Object => {
                for (name, value) in parts.members() {
                    self.gemini_part(&name.decoded(), &value);
                }
            }
            _ => self.raw(parts),
        }
    }

    /// A member of a part. What is not known here could be anything: it is refused unless it is allowed.
    fn gemini_part(&mut self, name: &str, value: &Value<'_>) {
        match name {
            "text" => self.text(value),
            "functionCall" => self.raw(value),
            "functionResponse" => {
                for (name, value) in value.members() {
                    match &*name.decoded() {
                        "parts" => self.gemini_parts(&value),
                        _ => self.raw(&value),
                    }
                }
            }
            "thought" | "thoughtSignature" => {}
            "inlineData" => {
                let kind = value.get("mimeType").and_then(|kind| kind.as_str()).unwrap_or_default();
                match kind.split('/').next().unwrap_or_default() {
                    "image" => self.images += 1,
                    "audio" => self.other("input_audio"),
                    "video" => self.other("video_url"),
                    "text" => value.get("data").iter().for_each(|data| self.text(data)),
                    _ => self.other("file"),
                }
            }
            "fileData" => self.other("file_id"),
            other => self.other(other),
        }
    }

    /// A block that the app found, with its text in blocks.
    fn search_result(&mut self, block: &Value<'_>) {
        for (name, value) in block.members() {
            match &*name.decoded() {
                "content" => self.parts(&value),
                _ => self.text(&value),
            }
        }
    }

    fn other(&mut self, kind: &str) {
        if self.media.len() <= MOST_KINDS && !self.media.iter().any(|known| &**known == kind) {
            self.media.push(Arc::from(kind));
        }
    }
}
