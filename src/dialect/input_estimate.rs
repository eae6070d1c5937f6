//! Estimates the input tokens of a request: text, images and fixed overheads.
//!
//! A text is weighed wherever it stands. Servers and translations differ in which member of a part they read,
//! so nothing may count on a member being left unread.

use std::sync::Arc;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use gatekeeper_filters::{
    kernel::{
        Detail, Image, Input, Rejection, image,
        json::{JsonKind, Value},
    },
    meter::estimate::{self, Estimate},
};

fn is(value: &Value<'_>, text: &str) -> bool {
    value.as_str().is_some_and(|value| value == text)
}

/// A kind of item that names what a provider keeps.
pub const ITEM_REFERENCE: &str = "item_reference";

/// The items of a conversation whose tools all run in the app. A call of a hosted tool may be only the id
/// of an item stored in the seller's account.
const OWN_ITEMS: [&str; 6] = [
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
];

/// Further values of `type` and `status` that are not text.
const WORDS: [&str; 6] = ["function", "custom", "completed", "in_progress", "incomplete", "base64"];

/// The content of a reasoning item; without any of it the item is only a reference by id.
const REASONING: [&str; 3] = ["encrypted_content", "summary", "content"];

/// Allowed roles, by the member that holds the conversation. A provider that puts roles into its template
/// would treat any other as text.
pub const CHAT_ROLES: Roles =
    ("messages", &["system", "developer", "user", "assistant", "tool", "function"]);
pub const ITEM_ROLES: Roles = ("input", &["system", "developer", "user", "assistant"]);
pub const MESSAGES_ROLES: Roles = ("messages", &["user", "assistant", "system"]);
pub const GEMINI_ROLES: Roles = ("contents", &["user", "model", "function", "tool", "system"]);

pub type Roles = (&'static str, &'static [&'static str]);

/// Anything but an empty list.
fn is_filled(value: Value<'_>) -> bool {
    value.kind() != JsonKind::Array || value.items().next().is_some()
}

/// Names up to this length stand for themselves; in a longer one there could be text.
const NAME: usize = 32;

/// An address of an image up to this length is fetched, not read.
const ADDRESS: usize = 8192;

/// Adds up the input of a request.
#[derive(Default)]
pub struct InputEstimate {
    pub input: Input,
    /// Kinds of parts beside text and images; never more than [`MOST_KINDS`] and one.
    pub media: Vec<Arc<str>>,
    /// Why the request can't be served, if it can't.
    pub refused: Option<Rejection>,
}

/// Kinds that one request may have. Each new one is compared with those before: a body made of nothing
/// but kinds would keep a thread busy for minutes.
pub const MOST_KINDS: usize = 16;

impl InputEstimate {
    fn add(&mut self, text: &str) {
        self.input.text += estimate::text(text);
        self.input.bytes += text.len() as u64;
    }

    fn wrap(&mut self, tokens: u64) {
        self.input.text += Estimate::of_tokens(tokens);
    }

    /// What surrounds all messages.
    pub fn request(&mut self) {
        self.wrap(estimate::REQUEST_TOKENS);
    }

    pub fn text(&mut self, value: &Value<'_>) {
        match value.as_str() {
            Some(text) => self.add(&text),
            None => self.raw(value),
        }
    }

    /// Anything that is no plain text is weighed as it stands.
    fn raw(&mut self, value: &Value<'_>) {
        match value.kind() {
            JsonKind::Null | JsonKind::Bool => {}
            JsonKind::Array | JsonKind::Object if value.raw().len() == 2 => {}
            // A strictly checked body is UTF-8 everywhere.
            _ => match std::str::from_utf8(value.raw()) {
                Ok(text) => self.add(text),
                Err(_) => self.add(&String::from_utf8_lossy(value.raw())),
            },
        }
    }

    /// A member that has no meaning here.
    fn member(&mut self, name: &str, value: &Value<'_>) {
        if name.len() > NAME {
            self.add(name);
        }
        self.text(value);
    }

    /// `type` and `status`: the words that are known weigh nothing.
    fn word(&mut self, value: &Value<'_>) {
        let known = |word: &str| OWN_ITEMS.contains(&word) || WORDS.contains(&word);
        if !value.as_str().is_some_and(|word| known(&word)) {
            self.text(value);
        }
    }

    /// One string, or one list of token numbers.
    pub fn embedded(&mut self, value: &Value<'_>) {
        let numbers = match value.kind() {
            JsonKind::Array => value.items().count() as u64,
            JsonKind::Number => 1,
            _ => return self.text(value),
        };
        self.wrap(numbers);
        self.input.bytes += value.raw().len() as u64;
    }

    /// A message, or another item that stands in its place.
    pub fn message(&mut self, message: &Value<'_>, roles: Roles) {
        self.wrap(estimate::MESSAGE_TOKENS);
        if message.kind() != JsonKind::Object {
            return self.text(message);
        }
        for (name, value) in message.members() {
            match &*name.decoded() {
                "role" => self.role(&value, roles),
                "type" | "status" => self.word(&value),
                "content" | "output" => self.parts(&value),
                name => self.member(name, &value),
            }
        }
    }

    fn role(&mut self, role: &Value<'_>, (field, known): Roles) {
        let fits = |role: &str| known.contains(&role);
        if !role.is_null() && !role.as_str().is_some_and(|role| fits(&role)) {
            let message = format!("\"{field}\": a role is one of {}.", known.join(", "));
            self.refused.get_or_insert_with(|| Rejection::field(field, message));
        }
    }

    /// An item of OpenAI's responses. One with only an id, and a file by its id, refer to state in the
    /// seller's account.
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
        self.message(item, ITEM_ROLES);
    }

    /// Text, or parts. One that stands alone is looked at like one in a list: servers differ in what they take.
    pub fn parts(&mut self, parts: &Value<'_>) {
        match parts.kind() {
            JsonKind::Array => parts.items().for_each(|part| self.parts(&part)),
            JsonKind::Object => self.part(parts),
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
            Some("image_url" | "input_image" | "image") => self.image(part),
            // Anthropic's blocks. A source may be a file that is kept in the seller's account.
            Some("tool_use") | None => self.raw(part),
            // A signature is verified by its issuer; it cannot hold text.
            Some("thinking" | "redacted_thinking") => self.members(part, &["type", "signature"]),
            Some("document") => match source.and_then(|source| source.get("type")) {
                Some(kind) if is(&kind, "text") => self.raw(part),
                _ => {
                    self.other("file");
                    self.media(part, "file");
                }
            },
            Some(
                "text" | "input_text" | "output_text" | "refusal" | "summary_text" | "tool_result"
                | "search_result",
            ) => self.members(part, &["type"]),
            Some(other) => {
                self.other(other);
                self.media(part, other);
            }
        }
    }

    /// All members of a part but those that are known to hold no text.
    fn members(&mut self, part: &Value<'_>, without: &[&str]) {
        for (name, value) in part.members() {
            match &*name.decoded() {
                "content" => self.parts(&value),
                "signature" if without.contains(&"signature") => {
                    self.input.bytes += value.raw().len() as u64;
                }
                "cache_control" if value.raw().len() <= 2 * NAME => {}
                name if without.contains(&name) => {}
                name => self.member(name, &value),
            }
        }
    }

    fn image(&mut self, part: &Value<'_>) {
        let mut image = Image::default();
        self.look_at(part, &mut image);
        self.input.images.push(image);
    }

    /// Finds an image's bytes and detail; whatever else stands there is text.
    fn look_at(&mut self, object: &Value<'_>, image: &mut Image) {
        for (name, value) in object.members() {
            let text = value.as_str();
            match (&*name.decoded(), text.as_deref()) {
                (_, None) if value.kind() == JsonKind::Object => self.look_at(&value, image),
                ("url" | "image_url" | "data", Some(text)) => match payload(text) {
                    Some(data) => image.size = size_of_base64(data).or(image.size),
                    None if is_address(text) => {}
                    None => image.size = size_of_base64(text).or(image.size),
                },
                ("detail", Some("low")) => image.detail = Detail::Low,
                ("detail", Some("original")) => image.detail = Detail::Original,
                ("type" | "detail" | "media_type" | "mimeType" | "cache_control", Some(text))
                    if text.len() <= NAME => {}
                (name, _) => self.member(name, &value),
            }
        }
    }

    /// A part whose bytes no text is: a file, audio, a video.
    fn media(&mut self, part: &Value<'_>, kind: &str) {
        for (name, value) in part.members() {
            let text = value.as_str();
            match (&*name.decoded(), text.as_deref()) {
                (_, None) if value.kind() == JsonKind::Object => self.media(&value, kind),
                ("data" | "file_data" | "url" | "file_url" | "video_url", Some(text)) => {
                    self.bytes_of(text, kind);
                }
                ("type" | "format" | "media_type" | "mimeType", Some(text))
                    if text.len() <= NAME => {}
                (name, _) => self.member(name, &value),
            }
        }
    }

    /// Bytes in base64, in a `data:` URL or alone, or an address where they are.
    fn bytes_of(&mut self, text: &str, kind: &str) {
        if is_address(text) {
            self.input.remote += 1;
            return;
        }
        let bytes = decoded_len(payload(text).unwrap_or(text));
        let sum =
            if kind.contains("audio") { &mut self.input.audio } else { &mut self.input.files };
        *sum += bytes;
    }

    /// One of Gemini's contents.
    pub fn content(&mut self, content: &Value<'_>) {
        self.wrap(estimate::MESSAGE_TOKENS);
        if content.kind() != JsonKind::Object {
            return self.text(content);
        }
        for (name, value) in content.members() {
            match &*name.decoded() {
                "role" => self.role(&value, GEMINI_ROLES),
                "parts" => self.gemini_parts(&value),
                name => self.member(name, &value),
            }
        }
    }

    /// Google takes one part for a list of one.
    fn gemini_parts(&mut self, parts: &Value<'_>) {
        match parts.kind() {
            JsonKind::Array => parts.items().for_each(|part| self.gemini_parts(&part)),
            JsonKind::Object => {
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
                        name => self.member(name, &value),
                    }
                }
            }
            "thought" => {}
            // As with Anthropic's: verified by its issuer.
            "thoughtSignature" => self.input.bytes += value.raw().len() as u64,
            "inlineData" => {
                let kind = value.get("mimeType").and_then(|kind| kind.as_str()).unwrap_or_default();
                match kind.split('/').next().unwrap_or_default() {
                    "image" => self.image(value),
                    "audio" => {
                        self.other("input_audio");
                        self.media(value, "audio");
                    }
                    "video" => {
                        self.other("video_url");
                        self.media(value, "video");
                    }
                    "text" => value.get("data").iter().for_each(|data| self.text(data)),
                    _ => {
                        self.other("file");
                        self.media(value, "file");
                    }
                }
            }
            "fileData" => self.other("file_id"),
            other => {
                self.other(other);
                self.raw(value);
            }
        }
    }

    fn other(&mut self, kind: &str) {
        if self.media.len() <= MOST_KINDS && !self.media.iter().any(|known| &**known == kind) {
            self.media.push(Arc::from(kind));
        }
    }
}

/// What stands behind the comma of a `data:` URL.
fn payload(url: &str) -> Option<&str> {
    let scheme = url.get(..5)?;
    scheme.eq_ignore_ascii_case("data:").then(|| url.split_once(',').map_or("", |(_, data)| data))
}

fn is_address(text: &str) -> bool {
    let begins = |scheme: &str| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    text.len() <= ADDRESS && (begins("https://") || begins("http://") || begins("gs://"))
}

fn decoded_len(base64: &str) -> u64 {
    (base64.trim_end_matches('=').len() as u64 * 3).div_ceil(4)
}

/// Padded or not, and cut off anywhere.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Characters of base64 that are decoded for an image's size. That of a JPEG may stand behind a thumbnail and a
/// colour profile; all others have it in the first bytes.
const LOOKED_AT: [usize; 3] = [64, 4096, 96 * 1024];

/// Width and height of an image in base64, from its first bytes.
fn size_of_base64(text: &str) -> Option<(u32, u32)> {
    let bytes = text.trim_start().as_bytes();
    LOOKED_AT.into_iter().find_map(|most| {
        let most = most.min(bytes.len() & !3);
        let head = BASE64.decode(bytes.get(..most)?).ok()?;
        image::size(&head)
    })
}

#[cfg(test)]
mod tests;
