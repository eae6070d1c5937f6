//! Counts tokens: folds what each event of an answer says into the exchange.
//!
//! The readers below are pure functions. `src/upstream` calls them once per event and hands the
//! reading to the chain, so that an event is parsed once however many filters watch it.

pub mod anthropic;
pub mod estimate;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::panic, reason = "a fuzzer finds panics")]
pub mod fuzz_targets;
pub mod gemini;
pub mod json;
pub mod openai;
pub mod sse;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::{estimate::Estimate, json::NotJson};
use crate::kernel::{Endpoint, Exchange, Filter, Hooks, Services, Spec, Usage, async_trait};

/// What one event of a stream, or one whole JSON answer, says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The provider's count, where this event carries one.
    pub usage: Option<Usage>,
    /// The provider's count of the input alone: its output is not counted yet.
    pub input: Option<Usage>,
    /// The provider's count of input and output together, where it tells nothing else.
    pub total: Option<u64>,
    /// Output text in this event, by [`estimate`]. A whole answer's need not be
    /// weighed beside a count of the provider's.
    pub output_millitokens: Estimate,
    /// Carries output: text, a tool call, reasoning, a refusal or a finish. The commit point.
    pub commits: bool,
    /// What it carries, finishes aside.
    pub output: Output,
    /// The answer says that it is complete (a finish reason, `response.completed`, or the like).
    pub finished: bool,
    /// How, where it is finished.
    pub ending: StreamEnd,
    /// The end marker (`[DONE]`).
    pub done: bool,
    /// Carries nothing but usage: taken out again for an app that did not ask for it.
    pub usage_only: bool,
    /// The provider reports an error inside a 200.
    pub failed: bool,
    /// An event whose data no JSON parser takes: every SDK would stumble over it.
    pub malformed: bool,
}

/// What an event carries for a reader of the answer; the greater outweighs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    #[default]
    None,
    /// Reasoning: the answer itself is still to come.
    Reasoning,
    /// Text, a tool call, a refusal, a picture, a vector.
    Answer,
}

/// How an answer says that it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamEnd {
    /// Cut short, refused, blocked, for a tool, or with a reason that is not known.
    #[default]
    Other,
    /// The model had no more to say.
    Natural,
    /// The model tried to call a tool, and its call could not be read (Gemini's `MALFORMED_FUNCTION_CALL`).
    MalformedCall,
}

impl StreamEnd {
    /// By the word for it, of any dialect.
    fn of(reason: &[u8]) -> Self {
        const MALFORMED: &[u8] = b"MALFORMED_FUNCTION_CALL";
        match reason {
            b"stop" | b"STOP" | b"end_turn" => StreamEnd::Natural,
            // Gemini's compatible endpoint has words before it.
            _ if reason.to_ascii_uppercase().ends_with(MALFORMED) => StreamEnd::MalformedCall,
            _ => StreamEnd::Other,
        }
    }

    /// Whether an answer that ends so without any output, and for which the provider counted `output` tokens,
    /// is none: to ask once more costs the app nothing, and mostly helps.
    pub fn is_hollow(self, output: Option<u64>) -> bool {
        match self {
            StreamEnd::Natural => output == Some(0),
            StreamEnd::MalformedCall => true,
            StreamEnd::Other => false,
        }
    }
}

impl Reading {
    /// Whether a whole answer holds none.
    pub fn is_hollow(&self) -> bool {
        let counted = self.usage.map(|usage| usage.output);
        self.finished && self.output == Output::None && self.ending.is_hollow(counted)
    }

    /// Something of an answer: what a provider counted, or output.
    fn counts(&self) -> bool {
        let counted = self.usage.is_some() || self.input.is_some() || self.total.is_some();
        counted || self.output != Output::None
    }
}

/// Reads the events of one stream of an endpoint.
#[derive(Debug)]
pub enum StreamReader {
    Chat(openai::stream::ChatStream),
    Responses,
    Messages(anthropic::AnthropicStream),
    Generate,
}

impl StreamReader {
    /// `endpoint` is the provider's.
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Chat | Endpoint::Embeddings => {
                StreamReader::Chat(openai::stream::ChatStream::default())
            }
            Endpoint::Responses => StreamReader::Responses,
            Endpoint::Messages => StreamReader::Messages(anthropic::AnthropicStream::default()),
            Endpoint::Generate => StreamReader::Generate,
        }
    }

    pub fn read(&mut self, event_name: Option<&str>, data: &[u8]) -> Reading {
        match self {
            StreamReader::Chat(chat) => chat.read(data),
            StreamReader::Responses => openai::responses_event(event_name, data),
            StreamReader::Messages(messages) => messages.read(event_name, data),
            StreamReader::Generate => gemini::event(data),
        }
    }
}

/// A whole JSON answer of a provider's endpoint.
///
/// # Errors
/// The body is no JSON.
pub fn answer(endpoint: Endpoint, body: &[u8]) -> Result<Reading, NotJson> {
    match endpoint {
        Endpoint::Chat | Endpoint::Responses | Endpoint::Embeddings => {
            openai::answer(endpoint, body)
        }
        Endpoint::Messages => anthropic::answer(body),
        Endpoint::Generate => gemini::answer(body),
    }
}

/// YAML: `meter`, no options.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Meter {}

impl Spec for Meter {
    const NAME: &'static str = "meter";
    const SUMMARY: &'static str = "counts tokens from what the provider reports, else estimates";

    fn build(self, _services: &Services) -> Result<Arc<dyn Filter>, String> {
        Ok(Arc::new(self))
    }
}

#[async_trait]
impl Filter for Meter {
    fn hooks(&self) -> Hooks {
        Hooks::CHUNK
    }

    fn chunk(&self, exchange: &mut Exchange, reading: &Reading) {
        exchange.progress.counted |= reading.counts();
        let metered = &mut exchange.metered;
        let text = reading.output_millitokens;
        metered.input = reading.input.or(metered.input);
        match (reading.usage, reading.total) {
            (Some(usage), _) => (metered.reported, metered.total) = (Some(usage), None),
            (None, Some(total)) => {
                // Of the count before only the input still holds.
                let before = metered.reported.take().filter(|usage| usage.input > 0);
                metered.input = metered.input.or(before);
                metered.total = Some(total);
            }
            (None, None) => {}
        }
        metered.seen_millitokens += text;
        // A count includes what stands beside it.
        let is_count = reading.usage.is_some() || reading.total.is_some();
        let late = &mut metered.output_millitokens;
        *late = if is_count { Estimate::default() } else { *late + text };
    }
}
