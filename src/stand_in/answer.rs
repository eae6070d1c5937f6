//! The fixed answers of the stand-in, in each dialect.

use gatekeeper_filters::{
    kernel::{Endpoint, UnixMs, Vocabulary},
    meter::estimate,
};
use serde_json::{Value, json};

use super::{asked, schema};

/// One request.
pub struct StandInRequest {
    pub(super) endpoint: Endpoint,
    pub model: String,
    pub stream: bool,
    /// In tokens.
    pub input: u64,
    pub reply: Reply,
    /// The answer was cut at the cap that was asked for.
    pub cut: bool,
    /// The stop sequence that ended the answer.
    pub stopped: Option<String>,
    /// Seconds since 1970.
    pub created: u64,
    pub(super) body: Value,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// In pieces of about a token.
    Words(Vec<String>),
    /// A tool of the app's is called.
    Call { name: String, arguments: Value },
}

impl StandInRequest {
    /// `target` is the path with its query.
    pub fn of(target: &str, body: Value) -> Self {
        let path = target.split('?').next().unwrap_or_default();
        let method = path.rsplit(':').next().unwrap_or_default();
        let endpoint = match path.rsplit('/').next().unwrap_or_default() {
            "embeddings" => Endpoint::Embeddings,
            "messages" => Endpoint::Messages,
            "responses" => Endpoint::Responses,
            _ if method.ends_with("enerateContent") => Endpoint::Generate,
            _ => Endpoint::Chat,
        };
        let Answer { reply, cut, stopped } = answer(&body);
        Self {
            endpoint,
            model: body["model"].as_str().unwrap_or("stand-in").to_owned(),
            stream: body["stream"] == true || method == "streamGenerateContent",
            input: weight(&body).max(1),
            reply,
            cut,
            stopped,
            created: UnixMs::now().0 / 1000,
            body,
        }
    }

    pub fn output(&self) -> u64 {
        self.reply.tokens().max(1)
    }
}

impl Reply {
    fn tokens(&self) -> u64 {
        match self {
            Reply::Words(words) => tokens(&words.concat()),
            Reply::Call { name, arguments } => tokens(&format!("{name}{arguments}")),
        }
    }
}

pub fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// An event that carries its name twice.
pub fn named(name: &str, mut data: Value) -> String {
    data["type"] = name.into();
    format!("event: {name}\n{}", event(&data))
}

pub fn tokens(text: &str) -> u64 {
    estimate::text(text).tokens(Vocabulary::O200k)
}

/// An image weighs as a small one does.
const IMAGE: u64 = 85;

fn weight(value: &Value) -> u64 {
    match value {
        Value::String(text) if text.starts_with("data:") => IMAGE,
        Value::String(text) => tokens(text),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| if name == "data" { IMAGE } else { weight(value) })
            .sum(),
        Value::Number(_) => 1,
        Value::Null | Value::Bool(_) => 0,
    }
}

/// What a request is answered, and what ended it.
struct Answer {
    reply: Reply,
    cut: bool,
    stopped: Option<String>,
}

/// A call where tools are offered and none was called yet, else what keeps to the schema, else words.
fn answer(body: &Value) -> Answer {
    let heard = asked::last(body);
    let most = asked::cap(body).unwrap_or(u64::MAX);
    if let (asked::Said::Words(_), Some(tool)) = (&heard, asked::tool(body)) {
        let arguments = schema::sample(&tool.parameters);
        let arguments = if arguments.is_object() { arguments } else { json!({}) };
        let reply = Reply::Call { name: tool.name, arguments };
        // Half a call is of no use to an app: where it does not fit, words are cut at the cap.
        if reply.tokens() <= most {
            return Answer { reply, cut: false, stopped: None };
        }
    }
    let mut text = match asked::format(body) {
        Some(schema) => schema::sample(schema).to_string(),
        None if asked::wants_json(body) => json!({ "answer": "All is well." }).to_string(),
        None => in_words(&heard, asked::images(body)),
    };
    let stops = asked::stops(body).into_iter();
    let first = stops.filter_map(|stop| Some((text.find(stop)?, stop))).min();
    if let Some((end, _)) = first {
        text.truncate(end);
    }
    let said = within(&text, most);
    let cut = said.len() < text.len();
    let stopped = first.filter(|_| !cut).map(|(_, stop)| stop.to_owned());
    let words = said.split_inclusive(' ').map(str::to_owned).collect();
    Answer { reply: Reply::Words(words), cut, stopped }
}

/// As much of the beginning as counts for `most` tokens.
fn within(text: &str, most: u64) -> &str {
    if tokens(text) <= most {
        return text;
    }
    let ends: Vec<usize> = text.char_indices().map(|(at, char)| at + char.len_utf8()).collect();
    let fit = ends.partition_point(|end| tokens(&text[..*end]) <= most);
    fit.checked_sub(1).map_or("", |last| &text[..ends[last]])
}

fn in_words(heard: &asked::Said, images: usize) -> String {
    let (who, text) = match heard {
        asked::Said::Words(text) => ("You", text),
        asked::Said::Tool(text) => ("The tool", text),
    };
    let heard: String = text.chars().take(60).collect();
    let seen = match images {
        0 => String::new(),
        1 => " One image came along.".to_owned(),
        many => format!(" {many} images came along."),
    };
    format!("This is the stand-in provider. {who} said: \"{heard}\".{seen} All is well.")
}

#[cfg(test)]
mod tests;
