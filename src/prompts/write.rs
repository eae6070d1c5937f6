//! The body of an ordinary request, in the words of each endpoint.

use std::ops::Range;

use bytes::Bytes;
use gatekeeper_filters::kernel::{Endpoint, RequestMembers};

use super::{
    Prompt,
    history::{Turn, TurnRole},
    weight::Weight,
};

/// What a prompt was made into.
pub struct PromptBody<'a> {
    pub prompt: &'a Prompt,
    pub values: &'a [Option<String>],
    /// Never empty.
    pub turns: &'a [Turn<'a>],
    pub is_stream: bool,
    pub wants_usage: bool,
}

/// Bytes of a body beside its texts: names of members, roles, quotes.
const AROUND: usize = 512;

/// A text in the making, and its members, which so need not be looked for in it.
#[derive(Default)]
struct Json {
    text: Vec<u8>,
    members: RequestMembers,
    /// The name of the member that is being written, and where its value begins.
    open: Option<(Range<usize>, usize)>,
}

impl Json {
    fn raw(&mut self, json: &str) -> &mut Self {
        self.text.extend_from_slice(json.as_bytes());
        self
    }

    fn string(&mut self, text: &str) -> &mut Self {
        // Into memory: nothing can fail.
        let _ = serde_json::to_writer(&mut self.text, text);
        self
    }

    /// Begins a member: all that follows, up to the next one, is its value.
    fn member(&mut self, name: &str) -> &mut Self {
        let (name, value) = self.name(name);
        self.open = Some((name, value));
        self
    }

    /// A member that the gateway's own requests have anyway.
    fn aside(&mut self, name: &str, json: &str) {
        self.name(name);
        self.raw(json);
    }

    fn name(&mut self, name: &str) -> (Range<usize>, usize) {
        self.close();
        self.raw(if self.text.is_empty() { "{\"" } else { ",\"" });
        let start = self.text.len();
        self.raw(name);
        let name = start..self.text.len();
        self.raw("\":");
        (name, self.text.len())
    }

    fn close(&mut self) {
        if let Some((name, value)) = self.open.take() {
            self.members.push_source(name, value..self.text.len());
        }
    }

    fn end(mut self) -> RequestMembers {
        self.close();
        self.raw("}");
        self.members.in_source(Bytes::from(self.text))
    }
}

impl PromptBody<'_> {
    pub fn write(&self, endpoint: Endpoint) -> RequestMembers {
        let turns: usize = self.turns.iter().map(|turn| turn.text.len() + 64).sum();
        let capacity = AROUND + self.prompt.system.size() + turns + turns / 8;
        let members = RequestMembers::new(Bytes::new());
        let mut json = Json { text: Vec::with_capacity(capacity), members, open: None };
        match endpoint {
            Endpoint::Responses => self.responses(&mut json),
            Endpoint::Messages => self.messages(&mut json),
            Endpoint::Generate => self.generate(&mut json),
            Endpoint::Chat | Endpoint::Embeddings => self.chat(&mut json),
        }
        for (name, value) in &self.prompt.fixed(endpoint).list {
            json.member(name).raw(value);
        }
        json.end()
    }

    /// What all members weigh together, by what is known of the parts.
    pub fn weight(&self, endpoint: Endpoint) -> Weight {
        let system = self.prompt.system_weight(self.values);
        let system = match endpoint {
            Endpoint::Responses | Endpoint::Messages => system,
            // Itself a message, or in the form of one.
            Endpoint::Chat | Endpoint::Generate | Endpoint::Embeddings => system.as_message(),
        };
        let turns = self.turns.iter().map(|turn| Weight::of(&turn.text).as_message());
        turns.fold(system + self.prompt.fixed(endpoint).weight, |sum, turn| sum + turn)
    }

    fn system(&self, json: &mut Json) {
        self.prompt.system.write(self.values, &mut json.text);
    }

    /// Role and content, as OpenAI and Anthropic have them.
    fn turns(&self, json: &mut Json) {
        for (place, turn) in self.turns.iter().enumerate() {
            json.raw(if place > 0 { ",{\"role\":" } else { "{\"role\":" });
            json.raw(match turn.role {
                TurnRole::User => "\"user\",\"content\":",
                TurnRole::Assistant => "\"assistant\",\"content\":",
            });
            json.string(&turn.text).raw("}");
        }
    }

    /// Model, stream and temperature, as all but Gemini have them.
    fn common(&self, json: &mut Json) {
        json.member("model").string(&self.prompt.model);
        if self.is_stream {
            json.member("stream").raw("true");
        }
        if let Some(temperature) = &self.prompt.temperature {
            json.member("temperature").raw(temperature);
        }
    }

    fn chat(&self, json: &mut Json) {
        self.common(json);
        if self.is_stream && self.wants_usage {
            json.aside("stream_options", "{\"include_usage\":true}");
        }
        json.member("messages").raw("[{\"role\":\"system\",\"content\":");
        self.system(json);
        json.raw("},");
        self.turns(json);
        json.raw("]");
    }

    fn responses(&self, json: &mut Json) {
        self.common(json);
        json.member("instructions");
        self.system(json);
        json.member("input").raw("[");
        self.turns(json);
        json.raw("]");
    }

    fn messages(&self, json: &mut Json) {
        self.common(json);
        json.member("system");
        self.system(json);
        json.member("messages").raw("[");
        self.turns(json);
        json.raw("]");
    }

    /// The model and whether it streams stand in the path.
    fn generate(&self, json: &mut Json) {
        json.member("systemInstruction").raw("{\"parts\":[{\"text\":");
        self.system(json);
        json.raw("}]}").member("contents").raw("[");
        for (place, turn) in self.turns.iter().enumerate() {
            json.raw(if place > 0 { ",{\"role\":" } else { "{\"role\":" });
            json.raw(match turn.role {
                TurnRole::User => "\"user\",\"parts\":[{\"text\":",
                TurnRole::Assistant => "\"model\",\"parts\":[{\"text\":",
            });
            json.string(&turn.text).raw("}]}");
        }
        json.raw("]");
    }
}
