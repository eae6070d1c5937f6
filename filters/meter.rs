//! Counts tokens: folds the readings of each event of an answer into the exchange.
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

use self::json::NotJson;
use crate::kernel::{Endpoint, Estimate, Exchange, Filter, Hooks, Services, Spec, async_trait};
pub use crate::kernel::{Output, Reading, StreamEnd};

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
