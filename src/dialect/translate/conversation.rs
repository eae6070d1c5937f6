//! Messages as turns: a system prompt of its own, then the user and the assistant by turns, the user first
//! and last. A turn is a list of blocks; what tools answered stands first in the user's.

use std::borrow::Cow;

use gatekeeper_filters::kernel::{
    Rejection,
    json::{JsonKind, Reader, Value},
};

use super::write::JsonWriter;

/// The user's turn before an assistant's first message. It must not be blank.
const OPENING: &str = ".";
/// The user's turn after an assistant's last message: newer models do not continue it.
const GO_ON: &str = "Go on.";

#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    system: Vec<Cow<'a, str>>,
    turns: Vec<Message<'a>>,
}

#[derive(Debug)]
struct Message<'a> {
    role: &'static str,
    results: Vec<ContentBlock<'a>>,
    blocks: Vec<ContentBlock<'a>>,
}

#[derive(Debug)]
enum ContentBlock<'a> {
    /// Never blank.
    Text(Cow<'a, str>),
    /// A `data:` URL in base64, or an `https:` URL.
    Image(Cow<'a, str>),
    Call {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        /// A JSON object.
        input: Vec<u8>,
    },
    Result {
        id: Cow<'a, str>,
        content: Vec<ContentBlock<'a>>,
    },
}

impl<'a> Conversation<'a> {
    /// # Errors
    /// 400 for what has no place in it.
    pub(super) fn of(messages: &Value<'a>) -> Result<Self, Rejection> {
        let mut conversation = Self::default();
        for message in messages.items() {
            conversation.add(&message)?;
        }
        conversation.close()?;
        Ok(conversation)
    }

    fn add(&mut self, message: &Value<'a>) -> Result<(), Rejection> {
        let role = message.get("role").and_then(|role| role.as_str()).unwrap_or_default();
        let content = blocks(message.get("content"))?;
        match &*role {
            "system" | "developer" => {
                for block in content {
                    let ContentBlock::Text(text) = block else {
                        return unfit("a system prompt is text");
                    };
                    self.system.push(text);
                }
            }
            "user" => self.turn("user", Vec::new(), content),
            "assistant" => {
                let content = assistant(message, content)?;
                self.turn("assistant", Vec::new(), content);
            }
            "tool" => {
                let id = identifier(message.get("tool_call_id"));
                self.turn("user", vec![ContentBlock::Result { id, content }], Vec::new());
            }
            _ => return unfit("roles are system, developer, user, assistant and tool"),
        }
        Ok(())
    }

    /// Adds a message; consecutive messages of one role are merged.
    fn turn(
        &mut self,
        role: &'static str,
        results: Vec<ContentBlock<'a>>,
        blocks: Vec<ContentBlock<'a>>,
    ) {
        if results.is_empty() && blocks.is_empty() {
            return;
        }
        match self.turns.last_mut().filter(|turn| turn.role == role) {
            Some(turn) => {
                turn.results.extend(results);
                turn.blocks.extend(blocks);
            }
            None => self.turns.push(Message { role, results, blocks }),
        }
    }

    fn close(&mut self) -> Result<(), Rejection> {
        if self.turns.is_empty() {
            // Instructions alone are what is asked.
            let system = std::mem::take(&mut self.system);
            self.turn("user", Vec::new(), system.into_iter().map(ContentBlock::Text).collect());
        }
        let side = |turn: Option<&Message<'_>>| turn.map(|turn| turn.role);
        if side(self.turns.first()) == Some("assistant") {
            self.turns.insert(0, Message::of_user(OPENING));
        }
        match side(self.turns.last()) {
            None => return unfit("there is nothing to be answered"),
            Some("assistant") => self.turns.push(Message::of_user(GO_ON)),
            Some(_) => {}
        }
        Ok(())
    }

    /// The system prompt as a JSON string, if there is one.
    pub(super) fn system(&self) -> Option<JsonWriter> {
        if self.system.is_empty() {
            return None;
        }
        let mut json = JsonWriter::default();
        json.string(&self.system.join("\n\n"));
        Some(json)
    }

    pub(super) fn messages(&self) -> JsonWriter {
        let mut json = JsonWriter::default();
        json.list(&self.turns, |json, turn| {
            json.raw("{\"role\":").string(turn.role).raw(",\"content\":");
            json.list(turn.results.iter().chain(&turn.blocks), |json, block| block.write(json));
            json.raw("}");
        });
        json
    }
}

impl Message<'_> {
    fn of_user(text: &'static str) -> Self {
        Message { role: "user", results: Vec::new(), blocks: vec![ContentBlock::Text(text.into())] }
    }
}

impl ContentBlock<'_> {
    fn write(&self, json: &mut JsonWriter) {
        match self {
            ContentBlock::Text(text) => json.raw("{\"type\":\"text\",\"text\":").string(text),
            ContentBlock::Image(url) => {
                json.raw("{\"type\":\"image\",\"source\":");
                write_source(json, url)
            }
            ContentBlock::Call { id, name, input } => json
                .raw("{\"type\":\"tool_use\",\"id\":")
                .string(id)
                .raw(",\"name\":")
                .string(name)
                .raw(",\"input\":")
                .raw(input),
            ContentBlock::Result { id, content } => {
                json.raw("{\"type\":\"tool_result\",\"tool_use_id\":").string(id);
                if !content.is_empty() {
                    json.raw(",\"content\":").list(content, |json, block| block.write(json));
                }
                json
            }
        }
        .raw("}");
    }
}

fn write_source<'j>(json: &'j mut JsonWriter, url: &str) -> &'j mut JsonWriter {
    match data_url(url) {
        Some((kind, data)) => json
            .raw("{\"type\":\"base64\",\"media_type\":")
            .string(kind)
            .raw(",\"data\":")
            .string(data)
            .raw("}"),
        None => json.raw("{\"type\":\"url\",\"url\":").string(url).raw("}"),
    }
}

/// What Anthropic takes.
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// The media type and the base64 of an image in a `data:` URL.
fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = strip_scheme(url, "data:")?.split_once(',')?;
    let (kind, coding) = head.rsplit_once(';')?;
    let kind = kind.split(';').next().unwrap_or_default();
    // A name that apps use and no registry has.
    let kind = if kind.eq_ignore_ascii_case("image/jpg") { "image/jpeg" } else { kind };
    let known = IMAGES.into_iter().find(|known| kind.eq_ignore_ascii_case(known))?;
    coding.eq_ignore_ascii_case("base64").then_some((known, data))
}

fn strip_scheme<'u>(url: &'u str, scheme: &str) -> Option<&'u str> {
    let head = url.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &url[scheme.len()..])
}

/// The assistant's text and its tool calls.
fn assistant<'a>(
    message: &Value<'a>,
    mut content: Vec<ContentBlock<'a>>,
) -> Result<Vec<ContentBlock<'a>>, Rejection> {
    let told = |name: &str| message.get(name).filter(|value| !value.is_null());
    if told("function_call").is_some() {
        return unfit("\"function_call\" is not served; use \"tool_calls\"");
    }
    content.extend(told("refusal").and_then(|refusal| text(refusal.as_str()?)));
    for call in told("tool_calls").iter().flat_map(Value::items) {
        let Some(function) = call.get("function") else {
            return unfit("only calls of functions are served");
        };
        let name = function.get("name").and_then(|name| name.as_str());
        let Some(name) = name else { return unfit("a call has no name") };
        let input = input(function.get("arguments"));
        content.push(ContentBlock::Call { id: identifier(call.get("id")), name, input });
    }
    Ok(content)
}

/// The arguments of a call, which must be an object. Those that are none were the model's mistake: it
/// sees them again as a text.
fn input(arguments: Option<Value<'_>>) -> Vec<u8> {
    let Some(arguments) = arguments else { return b"{}".to_vec() };
    let written = match arguments.as_str() {
        Some(text) => Cow::Owned(text.trim().as_bytes().to_vec()),
        None => Cow::Borrowed(arguments.raw()),
    };
    if written.is_empty() || &*written == b"null" {
        return b"{}".to_vec();
    }
    let mut reader = Reader::strict();
    if reader.parse(&written).is_ok_and(|value| value.kind() == JsonKind::Object) {
        return written.into_owned();
    }
    let mut json = JsonWriter::default();
    json.raw("{\"arguments\":").string(&String::from_utf8_lossy(&written)).raw("}");
    json.finish().to_vec()
}

/// Anthropic's ids are of letters, digits, `_` and `-`. A call and its result are changed alike.
fn identifier(id: Option<Value<'_>>) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match id.and_then(|id| id.as_str()) {
        Some(id) if !id.is_empty() && id.chars().all(fits) => id,
        Some(id) if !id.is_empty() => id.replace(|c| !fits(c), "_").into(),
        _ => "_".into(),
    }
}

/// The content of a message: a text, or a list of parts.
fn blocks(content: Option<Value<'_>>) -> Result<Vec<ContentBlock<'_>>, Rejection> {
    let Some(content) = content.filter(|content| !content.is_null()) else {
        return Ok(Vec::new());
    };
    if let Some(whole) = content.as_str() {
        return Ok(text(whole).into_iter().collect());
    }
    if content.kind() != JsonKind::Array {
        return unfit("content must be a text or a list of parts");
    }
    let parts: Result<Vec<_>, Rejection> = content.items().map(|part| block(&part)).collect();
    Ok(parts?.into_iter().flatten().collect())
}

/// Nothing for a text that is blank.
fn block<'a>(part: &Value<'a>) -> Result<Option<ContentBlock<'a>>, Rejection> {
    let kind = part.get("type").and_then(|kind| kind.as_str()).unwrap_or_default();
    match &*kind {
        "text" | "refusal" => match part.get(&kind).and_then(|value| value.as_str()) {
            Some(whole) => Ok(text(whole)),
            None => unfit("a part of type \"text\" has no text"),
        },
        "image_url" => {
            let image = part.get("image_url");
            let url = image.and_then(|image| image.get("url").unwrap_or(image).as_str());
            let fits = |url: &str| data_url(url).is_some() || strip_scheme(url, "https:").is_some();
            match url.filter(|url| fits(url)) {
                Some(url) => Ok(Some(ContentBlock::Image(url))),
                None => unfit("an image is JPEG, PNG, GIF or WebP in base64, or an https: URL"),
            }
        }
        _ => unfit("only parts of type \"text\" and \"image_url\" are served"),
    }
}

fn text(text: Cow<'_, str>) -> Option<ContentBlock<'_>> {
    (!text.trim().is_empty()).then_some(ContentBlock::Text(text))
}

fn unfit<T>(why: &str) -> Result<T, Rejection> {
    Err(Rejection::field("messages", format!("\"messages\": {why}.")))
}
