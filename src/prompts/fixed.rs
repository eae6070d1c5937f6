//! Makes what is the same in each request of a prompt: members of the body, and what fixed texts weigh.

use std::sync::OnceLock;

use gatekeeper_filters::kernel::Endpoint;

use super::{
    Prompt, PromptTool,
    kept::{FixedMembers, SystemWeights},
    variables::VariableKind,
    weight::Weight,
};

impl Prompt {
    /// What requests of an endpoint have behind their turns.
    pub(super) fn fixed(&self, endpoint: Endpoint) -> &FixedMembers {
        let [chat, responses, messages, generate] = &self.kept.fixed;
        let kept = match endpoint {
            Endpoint::Chat | Endpoint::Embeddings => chat,
            Endpoint::Responses => responses,
            Endpoint::Messages => messages,
            Endpoint::Generate => generate,
        };
        kept.get_or_init(|| FixedMembers::of(self, endpoint))
    }

    /// What the system text weighs with these values.
    pub(super) fn system_weight(&self, values: &[Option<String>]) -> Weight {
        let weigh = || Weight::of(&self.system.text(values));
        let weights = self.kept.system.get_or_init(|| SystemWeights::of(self));
        match weights.at(self, values) {
            Some(kept) => *kept.get_or_init(weigh),
            None => weigh(),
        }
    }
}

/// Combinations that are kept: 32 bytes each.
const COMBINATIONS: usize = 1024;

impl SystemWeights {
    fn of(prompt: &Prompt) -> Self {
        let mut choices: Vec<(usize, usize)> = Vec::new();
        for place in prompt.system.literals() {
            let VariableKind::OneOf(words) = &prompt.variables[place].kind else {
                return Self::default();
            };
            if !choices.iter().any(|(known, _)| *known == place) {
                choices.push((place, words.len()));
            }
        }
        let all = choices.iter().try_fold(1, |all: usize, (_, words)| all.checked_mul(*words));
        let kept = match all {
            Some(all @ ..=COMBINATIONS) => vec![OnceLock::new(); all],
            _ => Vec::new(),
        };
        Self { choices, kept }
    }

    /// Where the weight with these values is kept.
    fn at(&self, prompt: &Prompt, values: &[Option<String>]) -> Option<&OnceLock<Weight>> {
        let combination = self.choices.iter().try_fold(0, |sum, (place, count)| {
            let VariableKind::OneOf(words) = &prompt.variables.get(*place)?.kind else {
                return None;
            };
            let value = values.get(*place)?.as_deref()?;
            Some(sum * count + words.iter().position(|word| word == value)?)
        });
        self.kept.get(combination?)
    }
}

impl FixedMembers {
    pub(super) fn of(prompt: &Prompt, endpoint: Endpoint) -> Self {
        let mut list = Vec::new();
        let mut weight = Weight::default();
        match endpoint {
            Endpoint::Generate => list.extend(generation_config(prompt, &mut weight)),
            Endpoint::Responses => list.extend(text_format(prompt)),
            Endpoint::Messages => list.extend(output_config(prompt)),
            Endpoint::Chat | Endpoint::Embeddings => list.extend(response_format(prompt)),
        }
        if !prompt.tools.is_empty() {
            list.push(("tools", tools(endpoint, &prompt.tools)));
        }
        // A setting of Gemini's is weighed by itself.
        for (_, json) in list.iter().filter(|(name, _)| *name != GENERATION_CONFIG) {
            weight += Weight::of(json);
        }
        Self { list, weight }
    }
}

const GENERATION_CONFIG: &str = "generationConfig";

/// A text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// OpenAI's names of schemas have no dots.
fn schema_name(prompt: &Prompt) -> String {
    quoted(&prompt.name.replace('.', "_"))
}

fn response_format(prompt: &Prompt) -> Option<(&'static str, String)> {
    let (schema, name) = (prompt.schema.as_ref()?, schema_name(prompt));
    let strict = if schema.is_strict { ",\"strict\":true" } else { "" };
    let json = &schema.json;
    let format = format!(
        "{{\"type\":\"json_schema\",\"json_schema\":{{\"name\":{name},\"schema\":{json}{strict}}}}}"
    );
    Some(("response_format", format))
}

fn text_format(prompt: &Prompt) -> Option<(&'static str, String)> {
    let (schema, name) = (prompt.schema.as_ref()?, schema_name(prompt));
    let strict = if schema.is_strict { ",\"strict\":true" } else { "" };
    let json = &schema.json;
    let format = format!(
        "{{\"format\":{{\"type\":\"json_schema\",\"name\":{name},\"schema\":{json}{strict}}}}}"
    );
    Some(("text", format))
}

fn output_config(prompt: &Prompt) -> Option<(&'static str, String)> {
    let json = &prompt.schema.as_ref()?.json;
    let format = format!("{{\"format\":{{\"type\":\"json_schema\",\"schema\":{json}}}}}");
    Some(("output_config", format))
}

/// Texts of it are weighed, numbers are not.
fn generation_config(prompt: &Prompt, weight: &mut Weight) -> Option<(&'static str, String)> {
    const MIME: &str = "application/json";
    let mut members = Vec::new();
    if let Some(temperature) = &prompt.temperature {
        members.push(format!("\"temperature\":{temperature}"));
    }
    if let Some(schema) = &prompt.schema {
        *weight += Weight::of(MIME) + Weight::of(&schema.json);
        members.push(format!("\"responseMimeType\":\"{MIME}\""));
        members.push(format!("\"responseJsonSchema\":{}", schema.json));
    }
    let config = format!("{{{}}}", members.join(","));
    (!members.is_empty()).then_some((GENERATION_CONFIG, config))
}

fn tools(endpoint: Endpoint, tools: &[PromptTool]) -> String {
    let tools = tools.iter().map(|tool| match endpoint {
        Endpoint::Responses => {
            format!("{{\"type\":\"function\",{},\"strict\":false}}", described(tool, "parameters"))
        }
        Endpoint::Messages => format!("{{{}}}", described(tool, "input_schema")),
        Endpoint::Generate => format!("{{{}}}", described(tool, "parametersJsonSchema")),
        Endpoint::Chat | Endpoint::Embeddings => {
            let tool = described(tool, "parameters");
            format!("{{\"type\":\"function\",\"function\":{{{tool}}}}}")
        }
    });
    let tools = tools.collect::<Vec<_>>().join(",");
    match endpoint {
        Endpoint::Generate => format!("[{{\"functionDeclarations\":[{tools}]}}]"),
        _ => format!("[{tools}]"),
    }
}

fn described(tool: &PromptTool, schema: &str) -> String {
    let (name, parameters) = (quoted(&tool.name), &tool.parameters);
    let description = match tool.description.is_empty() {
        true => String::new(),
        false => format!("\"description\":{},", quoted(&tool.description)),
    };
    format!("\"name\":{name},{description}\"{schema}\":{parameters}")
}
