//! Counts tokens: folds what each event of an answer says into the exchange.
//!
//! The readers below are pure functions. `src/upstream` calls them once per event and hands the
//! reading to the chain, so that an event is parsed once however many filters watch it.

pub mod anthropic;
pub mod estimate;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::panic, reason = "a fuzzer finds panics")]
pub mod fuzzing;
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
    /// Output text in this event, by [`estimate`]; nothing beside a count of the provider's.
    pub output: Estimate,
    /// Carries output: text, a tool call, reasoning, a refusal or a finish. The commit point.
    pub commits: bool,
    /// The answer says that it is complete (a finish reason, `response.completed`, or the like).
    pub finished: bool,
    /// The end marker (`[DONE]`).
    pub done: bool,
    /// Carries nothing but usage: taken out again for an app that did not ask for it.
    pub usage_only: bool,
    /// The provider reports an error inside a 200.
    pub failed: bool,
    /// An event whose data no JSON parser takes: every SDK would stumble over it.
    pub malformed: bool,
}

/// Reads the events of one stream of an endpoint.
#[derive(Debug)]
pub enum Stream {
    Chat(openai::stream::ChatStream),
    Responses,
    Messages(anthropic::Stream),
    Generate,
}

impl Stream {
    /// `endpoint` is the provider's.
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Chat | Endpoint::Embeddings => {
                Stream::Chat(openai::stream::ChatStream::default())
            }
            Endpoint::Responses => Stream::Responses,
            Endpoint::Messages => Stream::Messages(anthropic::Stream::default()),
            Endpoint::Generate => Stream::Generate,
        }
    }

    pub fn read(&mut self, event_name: Option<&str>, data: &[u8]) -> Reading {
        match self {
            Stream::Chat(chat) => chat.read(data),
            Stream::Responses => openai::responses_event(event_name, data),
            Stream::Messages(messages) => messages.read(event_name, data),
            Stream::Generate => gemini::event(data),
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
        if let Some(usage) = reading.usage {
            exchange.metered.reported = Some(usage);
        }
        exchange.metered.input = reading.input.or(exchange.metered.input);
        exchange.metered.output += reading.output;
    }
}
