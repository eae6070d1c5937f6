//! A chat request as one of Anthropic's messages.

use std::borrow::Cow;

use bytes::Bytes;
use gatekeeper_filters::kernel::{
    Code, Endpoint, ModelRequest, Rejection, RequestMembers,
    json::{JsonKind, Reader, Value},
};

use super::{conversation::Conversation, write::JsonWriter};
use crate::dialect::allowed_fields;

/// The members of the translated body, all but the model. Members that OpenAI's chat does not have, which
/// some provider lets through, stay as they are.
///
/// # Errors
/// 400 naming the field that has no translation.
pub fn request(ask: &ModelRequest) -> Result<RequestMembers, Rejection> {
    let source = ask.members.to_pieces().concat();
    let mut reader = Reader::strict();
    let root = reader.parse(&source).map_err(|invalid| {
        Rejection::new(Code::InvalidRequest, "The request could not be read.")
            .internal(format!("a body that was checked has {invalid}"))
    })?;
    let asked = OpenAiRequest { root };
    asked.check()?;
    let mut members = RequestMembers::default();
    for (name, value) in root.members() {
        if !allowed_fields::passes(Endpoint::Chat, name.raw()) {
            members.set(name.decoded().into_owned(), Bytes::copy_from_slice(value.raw()));
        }
    }
    asked.conversation(&mut members)?;
    asked.tools(&mut members)?;
    asked.sampling(&mut members)?;
    asked.format(&mut members)?;
    let user = asked.get("safety_identifier").or_else(|| asked.get("user"));
    if let Some(user) = user.filter(|user| user.kind() == JsonKind::String) {
        let mut json = JsonWriter::default();
        json.raw("{\"user_id\":").raw(user.raw()).raw("}");
        members.set("metadata", json.finish());
    }
    if let Some(cap) = ask.output_cap {
        members.set("max_tokens", cap.to_string());
    }
    if ask.stream {
        members.set("stream", "true");
    }
    Ok(members)
}

/// Whether a member of a chat request has no counterpart in its translation.
pub fn leaves_out(members: &RequestMembers, name: &[u8]) -> bool {
    const LOST: [&[u8]; 12] = [
        b"seed",
        b"frequency_penalty",
        b"presence_penalty",
        b"logit_bias",
        b"top_logprobs",
        b"reasoning_effort",
        b"reasoning_format",
        b"include_reasoning",
        b"verbosity",
        b"prompt_cache_key",
        b"service_tier",
        b"modalities",
    ];
    let is_null = |name: &str| members.get(name).is_none_or(|json| json == b"null");
    match name {
        // Anthropic takes one of the two.
        b"top_p" => !is_null("top_p") && !is_null("temperature"),
        _ => LOST.contains(&name) && std::str::from_utf8(name).is_ok_and(|name| !is_null(name)),
    }
}

/// The members that the app sent.
struct OpenAiRequest<'a> {
    root: Value<'a>,
}

impl<'a> OpenAiRequest<'a> {
    /// `null` is as good as missing.
    fn get(&self, name: &str) -> Option<Value<'a>> {
        self.root.get(name).filter(|value| !value.is_null())
    }

    /// Refuses what is not looked at below and must not be left out.
    fn check(&self) -> Result<(), Rejection> {
        for name in ["functions", "function_call"] {
            if self.get(name).is_some() {
                return unfit(name, "use \"tools\" and \"tool_choice\"");
            }
        }
        if self.get("logprobs").and_then(|wanted| wanted.as_bool()) == Some(true) {
            return unfit("logprobs", "this model does not tell probabilities");
        }
        Ok(())
    }

    fn conversation(&self, members: &mut RequestMembers) -> Result<(), Rejection> {
        let Some(messages) = self.get("messages") else {
            return unfit("messages", "there is nothing to be answered");
        };
        let conversation = Conversation::of(&messages)?;
        if let Some(system) = conversation.system() {
            members.set("system", system.finish());
        }
        members.set("messages", conversation.messages().finish());
        Ok(())
    }

    fn tools(&self, members: &mut RequestMembers) -> Result<(), Rejection> {
        let mut tools = Vec::new();
        for tool in self.get("tools").iter().flat_map(Value::items) {
            let function = tool.get("function").filter(|_| is(tool.get("type"), "function"));
            let named = function.and_then(|it| Some((it, it.get("name")?.as_str()?)));
            let Some(named) = named else {
                return unfit("tools", "only tools of type \"function\" are served");
            };
            tools.push(named);
        }
        // A choice among no tools would be an error.
        if tools.is_empty() {
            return Ok(());
        }
        let mut json = JsonWriter::default();
        json.list(&tools, |json, (function, name)| write_tool(json, function, name));
        members.set("tools", json.finish());
        if let Some(choice) = self.tool_choice()? {
            members.set("tool_choice", choice);
        }
        Ok(())
    }

    fn tool_choice(&self) -> Result<Option<Bytes>, Rejection> {
        let parallel = self.get("parallel_tool_calls").and_then(|wanted| wanted.as_bool());
        let choice = self.get("tool_choice");
        let word = choice.and_then(|choice| choice.as_str());
        let function = choice.and_then(|choice| choice.get("function")?.get("name")?.as_str());
        let mut json = JsonWriter::default();
        json.raw("{\"type\":");
        match (choice, word.as_deref(), function) {
            (None, ..) if parallel != Some(false) => return Ok(None),
            (None, ..) | (_, Some("auto"), _) => json.string("auto"),
            (_, Some("required"), _) => json.string("any"),
            (_, Some("none"), _) => {
                json.string("none").raw("}");
                return Ok(Some(json.finish()));
            }
            (.., Some(name)) => json.string("tool").raw(",\"name\":").string(&name),
            _ => {
                let why = "it must be \"auto\", \"none\", \"required\" or one function";
                return unfit("tool_choice", why);
            }
        };
        if parallel == Some(false) {
            json.raw(",\"disable_parallel_tool_use\":true");
        }
        json.raw("}");
        Ok(Some(json.finish()))
    }

    fn sampling(&self, members: &mut RequestMembers) -> Result<(), Rejection> {
        let number = |name: &str| self.get(name).filter(|value| value.kind() == JsonKind::Number);
        if let Some(temperature) = number("temperature") {
            // OpenAI's goes up to 2, Anthropic's to 1.
            let within = match temperature.as_f64() {
                Some(degree) if degree > 1.0 => Bytes::from_static(b"1"),
                Some(degree) if degree < 0.0 => Bytes::from_static(b"0"),
                _ => Bytes::copy_from_slice(temperature.raw()),
            };
            members.set("temperature", within);
        } else if let Some(top_p) = number("top_p") {
            members.set("top_p", Bytes::copy_from_slice(top_p.raw()));
        }
        let Some(stop) = self.get("stop") else { return Ok(()) };
        let stops: Vec<Cow<'_, str>> = match stop.as_str() {
            Some(one) => vec![one],
            None => stop.items().filter_map(|one| one.as_str()).collect(),
        };
        if stops.iter().any(|stop| stop.trim().is_empty()) {
            return unfit("stop", "this model does not stop at blanks or line ends alone");
        }
        if !stops.is_empty() {
            let mut json = JsonWriter::default();
            json.list(&stops, |json, stop| {
                json.string(stop);
            });
            members.set("stop_sequences", json.finish());
        }
        Ok(())
    }

    fn format(&self, members: &mut RequestMembers) -> Result<(), Rejection> {
        let Some(format) = self.get("response_format") else { return Ok(()) };
        if is(format.get("type"), "text") {
            return Ok(());
        }
        let schema = format.get("json_schema").and_then(|format| format.get("schema"));
        let Some(schema) = schema.filter(|schema| schema.kind() == JsonKind::Object) else {
            return unfit(
                "response_format",
                "this model answers in JSON by a \"json_schema\" only",
            );
        };
        let mut json = JsonWriter::default();
        json.raw("{\"format\":{\"type\":\"json_schema\",\"schema\":").raw(schema.raw()).raw("}}");
        members.set("output_config", json.finish());
        Ok(())
    }
}

fn is(value: Option<Value<'_>>, text: &str) -> bool {
    value.and_then(|value| value.as_str()).is_some_and(|value| value == text)
}

fn write_tool(json: &mut JsonWriter, function: &Value<'_>, name: &str) {
    json.raw("{\"name\":").string(name);
    let description = function.get("description").and_then(|text| text.as_str());
    if let Some(text) = description.filter(|text| !text.trim().is_empty()) {
        json.raw(",\"description\":").string(&text);
    }
    json.raw(",\"input_schema\":");
    write_schema(json, function.get("parameters"));
    json.raw("}");
}

/// The schema of an object must state its type; OpenAI implies it.
fn write_schema(json: &mut JsonWriter, schema: Option<Value<'_>>) {
    if let Some(typed) = schema.filter(|schema| schema.get("type").is_some()) {
        json.raw(typed.raw());
        return;
    }
    json.raw("{\"type\":\"object\"");
    for (name, value) in schema.iter().flat_map(Value::members) {
        json.raw(",\"").raw(name.raw()).raw("\":").raw(value.raw());
    }
    json.raw("}");
}

fn unfit<T>(name: &str, why: &str) -> Result<T, Rejection> {
    Err(Rejection::field(name, format!("\"{name}\": {why}.")))
}
