//! The body of an ordinary request, in the words of each endpoint.

use gatekeeper_filters::kernel::Endpoint;

use super::{
    Prompt, PromptTool,
    history::{Turn, TurnRole},
};

/// What a prompt was made into.
pub struct PromptBody<'a> {
    pub prompt: &'a Prompt,
    pub values: &'a [Option<String>],
    /// Never empty.
    pub turns: &'a [Turn],
    pub is_stream: bool,
    pub wants_usage: bool,
}

/// A text in the making.
#[derive(Default)]
struct Json(Vec<u8>);

impl Json {
    fn raw(&mut self, json: &str) -> &mut Self {
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    fn string(&mut self, text: &str) -> &mut Self {
        // Into memory: nothing can fail.
        let _ = serde_json::to_writer(&mut self.0, text);
        self
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.raw("[");
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.raw(",");
            }
            write(self, item);
        }
        self.raw("]")
    }
}

impl PromptBody<'_> {
    pub fn write(&self, endpoint: Endpoint) -> Vec<u8> {
        let mut json = Json(Vec::with_capacity(1024));
        match endpoint {
            Endpoint::Responses => self.responses(&mut json),
            Endpoint::Messages => self.messages(&mut json),
            Endpoint::Generate => self.generate(&mut json),
            Endpoint::Chat | Endpoint::Embeddings => self.chat(&mut json),
        }
        json.0
    }

    fn system(&self, json: &mut Json) {
        self.prompt.system.write(self.values, &mut json.0);
    }

    /// Role and content, as OpenAI and Anthropic have them.
    fn turns(&self, json: &mut Json) {
        for (place, turn) in self.turns.iter().enumerate() {
            let role = if turn.role == TurnRole::User { "user" } else { "assistant" };
            json.raw(if place > 0 { ",{\"role\":" } else { "{\"role\":" }).string(role);
            json.raw(",\"content\":").string(&turn.text).raw("}");
        }
    }

    /// Model, stream and temperature, as all but Gemini have them.
    fn common(&self, json: &mut Json) {
        json.raw("{\"model\":").string(&self.prompt.model);
        if self.is_stream {
            json.raw(",\"stream\":true");
        }
        if let Some(temperature) = &self.prompt.temperature {
            json.raw(",\"temperature\":").raw(temperature);
        }
    }

    fn chat(&self, json: &mut Json) {
        self.common(json);
        if self.is_stream && self.wants_usage {
            json.raw(",\"stream_options\":{\"include_usage\":true}");
        }
        json.raw(",\"messages\":[{\"role\":\"system\",\"content\":");
        self.system(json);
        json.raw("},");
        self.turns(json);
        json.raw("]");
        if let Some(schema) = &self.prompt.schema {
            json.raw(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":");
            json.string(&self.schema_name()).raw(",\"schema\":").raw(&schema.json);
            json.raw(if schema.is_strict { ",\"strict\":true}}" } else { "}}" });
        }
        self.tools(json, |json, tool| {
            json.raw("{\"type\":\"function\",\"function\":{\"name\":").string(&tool.name);
            describe(json, tool, "parameters");
            json.raw("}}");
        });
        json.raw("}");
    }

    fn responses(&self, json: &mut Json) {
        self.common(json);
        json.raw(",\"instructions\":");
        self.system(json);
        json.raw(",\"input\":[");
        self.turns(json);
        json.raw("]");
        if let Some(schema) = &self.prompt.schema {
            json.raw(",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":");
            json.string(&self.schema_name()).raw(",\"schema\":").raw(&schema.json);
            json.raw(if schema.is_strict { ",\"strict\":true}}" } else { "}}" });
        }
        self.tools(json, |json, tool| {
            json.raw("{\"type\":\"function\",\"name\":").string(&tool.name);
            describe(json, tool, "parameters");
            json.raw(",\"strict\":false}");
        });
        json.raw("}");
    }

    fn messages(&self, json: &mut Json) {
        self.common(json);
        json.raw(",\"system\":");
        self.system(json);
        json.raw(",\"messages\":[");
        self.turns(json);
        json.raw("]");
        if let Some(schema) = &self.prompt.schema {
            json.raw(",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":");
            json.raw(&schema.json).raw("}}");
        }
        self.tools(json, |json, tool| {
            json.raw("{\"name\":").string(&tool.name);
            describe(json, tool, "input_schema");
            json.raw("}");
        });
        json.raw("}");
    }

    /// The model and whether it streams stand in the path.
    fn generate(&self, json: &mut Json) {
        json.raw("{\"systemInstruction\":{\"parts\":[{\"text\":");
        self.system(json);
        json.raw("}]},\"contents\":");
        json.list(self.turns, |json, turn| {
            let role = if turn.role == TurnRole::User { "user" } else { "model" };
            json.raw("{\"role\":").string(role).raw(",\"parts\":[{\"text\":");
            json.string(&turn.text).raw("}]}");
        });
        let mut members = Vec::new();
        if let Some(temperature) = &self.prompt.temperature {
            members.push(format!("\"temperature\":{}", temperature));
        }
        if let Some(schema) = &self.prompt.schema {
            members.push(format!(
                "\"responseMimeType\":\"application/json\",\"responseJsonSchema\":{}",
                schema.json
            ));
        }
        if !members.is_empty() {
            json.raw(",\"generationConfig\":{").raw(&members.join(",")).raw("}");
        }
        if !self.prompt.tools.is_empty() {
            json.raw(",\"tools\":[{\"functionDeclarations\":");
            json.list(&self.prompt.tools, |json, tool| {
                json.raw("{\"name\":").string(&tool.name);
                describe(json, tool, "parametersJsonSchema");
                json.raw("}");
            });
            json.raw("}]");
        }
        json.raw("}");
    }

    fn tools(&self, json: &mut Json, write: impl FnMut(&mut Json, &PromptTool)) {
        if !self.prompt.tools.is_empty() {
            json.raw(",\"tools\":").list(&self.prompt.tools, write);
        }
    }

    /// OpenAI's names of schemas have no dots.
    fn schema_name(&self) -> String {
        self.prompt.name.replace('.', "_")
    }
}

fn describe(json: &mut Json, tool: &PromptTool, schema: &str) {
    if !tool.description.is_empty() {
        json.raw(",\"description\":").string(&tool.description);
    }
    json.raw(",").string(schema).raw(":").raw(&tool.parameters);
}
