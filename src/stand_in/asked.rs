//! What a request asks for, in whichever dialect it is.

use serde_json::Value;

/// The last message of the request.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Words(String),
    /// What came of a call.
    Tool(String),
}

/// A tool that the app runs.
pub struct Tool {
    pub name: String,
    /// The schema of its arguments.
    pub parameters: Value,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The messages, items or contents.
fn turns(body: &Value) -> &[Value] {
    let lists = ["messages", "input", "contents"].map(|name| list(&body[name]));
    lists.into_iter().find(|list| !list.is_empty()).unwrap_or(&[])
}

/// The parts of a turn.
fn parts(turn: &Value) -> &[Value] {
    let found = ["content", "parts"].map(|name| list(&turn[name]));
    found.into_iter().find(|list| !list.is_empty()).unwrap_or(&[])
}

pub fn last(body: &Value) -> Said {
    if let Some(text) = body["input"].as_str() {
        return Said::Words(text.to_owned());
    }
    let Some(turn) = turns(body).last() else { return Said::Words(String::new()) };
    let result = match () {
        () if turn["role"] == "tool" => Some(&turn["content"]),
        () if turn["type"] == "function_call_output" => Some(&turn["output"]),
        () => parts(turn).iter().rev().find_map(|part| match part {
            part if part["type"] == "tool_result" => Some(&part["content"]),
            part => part.get("functionResponse").map(|answer| &answer["response"]),
        }),
    };
    match result {
        Some(result) => Said::Tool(plain(result)),
        None => Said::Words(text(turn)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        other => other.to_string(),
    }
}

fn text(turn: &Value) -> String {
    let whole = turn["content"].as_str().map(str::to_owned);
    let last = || parts(turn).iter().rev().find_map(|part| part["text"].as_str());
    whole.or_else(|| last().map(str::to_owned)).unwrap_or_default()
}

pub fn images(body: &Value) -> usize {
    let is_image = |part: &&Value| {
        matches!(part["type"].as_str(), Some("image_url" | "input_image" | "image"))
            || part.get("inlineData").is_some()
            || part.get("fileData").is_some()
    };
    turns(body).iter().flat_map(parts).filter(is_image).count()
}

/// The tool to be called, if one may be.
pub fn tool(body: &Value) -> Option<Tool> {
    let choice = &body["tool_choice"];
    let config = &body["toolConfig"]["functionCallingConfig"];
    if choice == "none" || choice["type"] == "none" || config["mode"] == "NONE" {
        return None;
    }
    let wanted = [&choice["name"], &choice["function"]["name"], &config["allowedFunctionNames"][0]];
    let wanted = wanted.into_iter().find_map(Value::as_str);
    let declared = list(&body["tools"]).iter().flat_map(|tool| {
        let declared = list(&tool["functionDeclarations"]);
        if declared.is_empty() { std::slice::from_ref(tool) } else { declared }
    });
    let mut tools = declared.filter_map(|tool| {
        let function = tool.get("function").unwrap_or(tool);
        let name = function["name"].as_str()?;
        // Google's SDK for Python writes the last one.
        const SCHEMAS: [&str; 4] =
            ["parameters", "input_schema", "parametersJsonSchema", "parameters_json_schema"];
        let schema = SCHEMAS.into_iter().find_map(|member| function.get(member));
        Some(Tool { name: name.to_owned(), parameters: schema.cloned().unwrap_or_default() })
    });
    tools.find(|tool| wanted.is_none_or(|wanted| wanted == tool.name))
}

/// The schema that the answer has to keep to.
pub fn format(body: &Value) -> Option<&Value> {
    const PLACES: [&str; 5] = [
        "/response_format/json_schema/schema",
        "/text/format/schema",
        "/output_config/format/schema",
        "/generationConfig/responseJsonSchema",
        "/generationConfig/responseSchema",
    ];
    PLACES.into_iter().find_map(|place| body.pointer(place)).filter(|schema| schema.is_object())
}

pub fn wants_json(body: &Value) -> bool {
    body["response_format"]["type"] == "json_object"
        || body["text"]["format"]["type"] == "json_object"
        || body["generationConfig"]["responseMimeType"] == "application/json"
}

pub fn cap(body: &Value) -> Option<u64> {
    let places = [
        &body["max_tokens"],
        &body["max_completion_tokens"],
        &body["max_output_tokens"],
        &body["generationConfig"]["maxOutputTokens"],
    ];
    places.into_iter().filter_map(Value::as_u64).min()
}

pub fn stops(body: &Value) -> Vec<&str> {
    let places =
        [&body["stop"], &body["stop_sequences"], &body["generationConfig"]["stopSequences"]];
    places
        .into_iter()
        .flat_map(|place| match place {
            Value::String(_) => std::slice::from_ref(place),
            place => list(place),
        })
        .filter_map(Value::as_str)
        .filter(|stop| !stop.is_empty())
        .collect()
}
