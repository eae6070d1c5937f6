//! An app's request for a prompt, in each of the ways in which it may be sent.

use std::borrow::Cow;

use gatekeeper_filters::kernel::{
    Endpoint, Rejection,
    json::{Document, JsonKind, Reader, Value},
};

use super::{named, value};

/// Where the variables stand that a request to `/v1/prompts/NAME` sends.
const VARIABLES: &str = "variables";

/// What an app asks for, not yet held against the prompt.
#[derive(Debug)]
pub struct PromptRequest<'a> {
    pub name: Cow<'a, str>,
    /// The member that names it.
    pub named_by: &'static str,
    pub variables: Variables<'a>,
    pub messages: Vec<Value<'a>>,
    /// The member that holds them.
    pub messages_at: &'static str,
    /// How many of them, taken off the front, hold the variables.
    pub taken: usize,
    pub is_stream: bool,
    pub wants_usage: bool,
    pub output_cap: Option<(&'static str, u64)>,
    /// What the app wrote in the place of a model beside a prompt.
    pub model: Option<Cow<'a, str>>,
    /// Members that change nothing here.
    pub dropped: Vec<String>,
}

#[derive(Debug)]
pub enum Variables<'a> {
    None,
    At(&'static str, Value<'a>),
    /// JSON in a text, and where that stands.
    Text(&'static str, Cow<'a, str>),
}

/// How a request may ask for a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// `POST /v1/prompts/NAME`.
    Own(&'a str),
    /// A body of this endpoint; Gemini names its model in the path.
    Body(Endpoint, Option<&'a str>),
}

/// Members that choose what a prompt has chosen.
const CHOSEN: [&str; 20] = [
    // Where another dialect, or another spelling, has the system text and the caps.
    "system",
    "systemInstruction",
    "system_instruction",
    "generation_config",
    "tool_config",
    "cached_content",
    "tools",
    "tool_choice",
    "toolConfig",
    "functions",
    "function_call",
    "response_format",
    "instructions",
    "output_config",
    "previous_response_id",
    "conversation",
    "background",
    "web_search_options",
    "mcp_servers",
    "cachedContent",
];

/// What the request asks for; `None` where it is not about a prompt.
///
/// # Errors
/// 400 naming the member that a prompt leaves no choice about.
pub fn read<'a>(
    way: Way<'a>,
    document: &'a Document,
) -> Result<Option<PromptRequest<'a>>, Rejection> {
    let root = document.root();
    if root.kind() != JsonKind::Object {
        return match way {
            Way::Own(_) => Err(Rejection::field("body", "The body must be a JSON object.")),
            Way::Body(..) => Ok(None),
        };
    }
    let Some((name, named_by)) = name_of(way, &root)? else { return Ok(None) };
    let mut asked = PromptRequest {
        name,
        named_by,
        variables: Variables::None,
        messages: Vec::new(),
        messages_at: match way {
            Way::Body(Endpoint::Responses, _) => "input",
            Way::Body(Endpoint::Generate, _) => "contents",
            _ => "messages",
        },
        taken: 0,
        is_stream: false,
        wants_usage: false,
        output_cap: None,
        model: None,
        dropped: Vec::new(),
    };
    for (name, value) in root.members() {
        let name = name.decoded();
        match way {
            Way::Own(_) => asked.own_member(&name, value)?,
            Way::Body(endpoint, _) => asked.member(endpoint, &name, value)?,
        }
    }
    asked.take_first_message();
    Ok(Some(asked))
}

/// The prompt that is asked for, and the member that names it.
fn name_of<'a>(
    way: Way<'a>,
    root: &Value<'a>,
) -> Result<Option<(Cow<'a, str>, &'static str)>, Rejection> {
    let of_model = |model: Cow<'a, str>| match model {
        Cow::Borrowed(model) => named(model).map(Cow::Borrowed),
        Cow::Owned(model) => named(&model).map(|name| Cow::Owned(name.to_owned())),
    };
    let named = match way {
        Way::Own(name) => Some((Cow::Borrowed(name), "name")),
        Way::Body(Endpoint::Generate, model) => {
            of_model(model.unwrap_or_default().into()).map(|name| (name, "model"))
        }
        Way::Body(endpoint, _) => {
            let is_object = endpoint == Endpoint::Responses;
            let prompt = is_object.then(|| root.get("prompt")).flatten();
            if let Some(prompt) = prompt.filter(|prompt| !prompt.is_null()) {
                let id = prompt.get("id").and_then(|id| id.as_str());
                let id = id.ok_or_else(|| {
                    let message = "\"prompt\" must be an object with the \"id\" of a prompt.";
                    Rejection::field("prompt.id", message)
                })?;
                return Ok(Some((id, "prompt.id")));
            }
            let model = root.get("model").and_then(|model| model.as_str());
            model.and_then(of_model).map(|name| (name, "model"))
        }
    };
    Ok(named)
}

impl<'a> PromptRequest<'a> {
    /// A member of the gateway's own way: nothing but what is known here.
    fn own_member(&mut self, name: &str, value: Value<'a>) -> Result<(), Rejection> {
        match name {
            "variables" => self.variables = Variables::At(VARIABLES, value),
            "messages" => self.messages = list(name, &value)?,
            "stream" => self.is_stream = flag(name, &value)?,
            "stream_options" => self.usage_wanted(&value),
            "max_output_tokens" => self.cap("max_output_tokens", &value)?,
            "max_completion_tokens" => self.cap("max_completion_tokens", &value)?,
            "max_tokens" => self.cap("max_tokens", &value)?,
            _ if value::is_nothing(&value) => {}
            _ => return refuse(name, "a prompt takes variables, messages and stream only"),
        }
        Ok(())
    }

    fn member(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        value: Value<'a>,
    ) -> Result<(), Rejection> {
        match (endpoint, name) {
            (Endpoint::Generate, "contents") => self.messages = list(name, &value)?,
            (Endpoint::Generate, "systemInstruction") => {
                let parts = value.get("parts").unwrap_or(value);
                self.text_of_variables("systemInstruction", &parts)?;
            }
            (Endpoint::Generate, "generationConfig") => self.generation_config(&value)?,
            (_, "model") => self.model = value.as_str(),
            (_, "stream") => self.is_stream = flag(name, &value)?,
            (Endpoint::Chat, "stream_options") => self.usage_wanted(&value),
            (Endpoint::Chat | Endpoint::Messages, "messages") => {
                self.messages = list(name, &value)?;
            }
            (Endpoint::Responses, "input") if value.kind() == JsonKind::Array => {
                self.messages = value.items().collect();
            }
            (Endpoint::Responses, "input") if !value.is_null() => self.messages = vec![value],
            (Endpoint::Responses, "prompt") => self.prompt(&value)?,
            (Endpoint::Responses, "text") => {
                if value.get("format").is_some_and(|format| !is_plain(&format)) {
                    return refuse("text.format", "the prompt has chosen it");
                }
            }
            (Endpoint::Messages, "system") => self.text_of_variables("system", &value)?,
            (Endpoint::Chat | Endpoint::Messages, "max_tokens") => {
                self.cap("max_tokens", &value)?
            }
            (Endpoint::Chat, "max_completion_tokens") => {
                self.cap("max_completion_tokens", &value)?;
            }
            (Endpoint::Responses, "max_output_tokens") => self.cap("max_output_tokens", &value)?,
            (_, chosen) if CHOSEN.contains(&chosen) => {
                if !is_plain(&value) {
                    return refuse(name, "the prompt has chosen it");
                }
            }
            _ if value::is_nothing(&value) => {}
            _ => self.dropped.push(name.to_owned()),
        }
        Ok(())
    }

    fn prompt(&mut self, prompt: &Value<'a>) -> Result<(), Rejection> {
        for (name, value) in prompt.members() {
            match &*name.decoded() {
                "id" => {}
                "variables" => self.variables = Variables::At("prompt.variables", value),
                _ if value.is_null() => {}
                name => {
                    let name = format!("prompt.{}", Rejection::shown(name));
                    return refuse(&name, "a prompt has an id and variables");
                }
            }
        }
        Ok(())
    }

    fn generation_config(&mut self, config: &Value<'a>) -> Result<(), Rejection> {
        for (name, value) in config.members() {
            match &*name.decoded() {
                "maxOutputTokens" => self.cap("generationConfig.maxOutputTokens", &value)?,
                name @ ("responseSchema" | "responseJsonSchema" | "responseMimeType")
                    if !is_plain(&value) =>
                {
                    return refuse(&format!("generationConfig.{name}"), "the prompt has chosen it");
                }
                _ if value::is_nothing(&value) => {}
                name => self.dropped.push(format!("generationConfig.{}", Rejection::shown(name))),
            }
        }
        Ok(())
    }

    fn usage_wanted(&mut self, options: &Value<'a>) {
        let wanted = options.get("include_usage").and_then(|wanted| wanted.as_bool());
        self.wants_usage = wanted == Some(true);
    }

    fn cap(&mut self, field: &'static str, value: &Value<'a>) -> Result<(), Rejection> {
        if value.is_null() {
            return Ok(());
        }
        let Some(cap) = value.as_u64().filter(|cap| *cap > 0) else {
            return refuse(field, "it must be a whole number above 0");
        };
        if self.output_cap.is_none_or(|(_, other)| cap > other) {
            self.output_cap = Some((field, cap));
        }
        Ok(())
    }

    /// The member in which a dialect has its system text holds the variables.
    fn text_of_variables(&mut self, at: &'static str, text: &Value<'a>) -> Result<(), Rejection> {
        if value::is_nothing(text) {
            return Ok(());
        }
        match value::text(text) {
            Some(text) => self.variables = Variables::Text(at, text),
            None => return refuse(at, NOT_VARIABLES),
        }
        Ok(())
    }

    /// One first message of the developer holds the variables, where nothing else does.
    fn take_first_message(&mut self) {
        let is_developer = |message: &Value<'_>| {
            let role = message.get("role").and_then(|role| role.as_str());
            role.is_some_and(|role| matches!(&*role, "developer" | "system"))
        };
        let is_free = matches!(self.variables, Variables::None);
        if !is_free || !self.messages.first().is_some_and(is_developer) {
            return;
        }
        let first = self.messages.remove(0);
        self.taken = 1;
        let content = first.get("content").and_then(|content| value::text(&content));
        let at = match self.messages_at {
            "input" => "input[0].content",
            _ => "messages[0].content",
        };
        self.variables = Variables::Text(at, content.unwrap_or_default());
    }
}

const NOT_VARIABLES: &str = "beside a prompt it holds the variables, as one JSON object";

impl Variables<'_> {
    /// Calls `use_them` with the object of variables and where it stands.
    ///
    /// # Errors
    /// A text that is no JSON object, and those of `use_them`.
    pub fn with<T>(
        &self,
        use_them: impl FnOnce(Option<&Value<'_>>, &str) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        match self {
            Variables::None => use_them(None, VARIABLES),
            Variables::At(at, value) => use_them(Some(value), at),
            Variables::Text(at, text) => {
                let mut reader = Reader::strict();
                match reader.parse(text.as_bytes()) {
                    Ok(value) if value.kind() == JsonKind::Object => use_them(Some(&value), at),
                    _ => refuse(at, NOT_VARIABLES),
                }
            }
        }
    }
}

/// What asks for no tool, or for plain text.
fn is_plain(value: &Value<'_>) -> bool {
    let kind = value.get("type").unwrap_or(*value);
    let word = kind.as_str();
    value::is_nothing(value)
        || word.is_some_and(|word| matches!(&*word, "none" | "auto" | "text" | "text/plain"))
}

fn list<'a>(name: &str, value: &Value<'a>) -> Result<Vec<Value<'a>>, Rejection> {
    match value.kind() {
        JsonKind::Array => Ok(value.items().collect()),
        JsonKind::Null => Ok(Vec::new()),
        _ => refuse(name, "it must be a list"),
    }
}

fn flag(name: &str, value: &Value<'_>) -> Result<bool, Rejection> {
    match value.as_bool() {
        Some(flag) => Ok(flag),
        None if value.is_null() => Ok(false),
        None => refuse(name, "it must be true or false"),
    }
}

fn refuse<T>(name: &str, why: &str) -> Result<T, Rejection> {
    let name = Rejection::shown(name);
    Err(Rejection::field(&name, format!("\"{name}\": {why}.")))
}
