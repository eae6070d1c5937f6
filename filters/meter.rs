//! Counts tokens: folds what each event of an answer says into the exchange.
//!
//! The readers below are pure functions. `src/upstream` calls them once per event and hands the
//! reading to the chain, so that an event is parsed once however many filters watch it.

pub mod estimate;
pub mod openai;
pub mod sse;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kernel::{Exchange, Filter, Hooks, Services, Spec, Usage, async_trait};

/// What one event of a stream, or one whole JSON answer, says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The provider's count, where this event carries one.
    pub usage: Option<Usage>,
    /// Thousandths of a token of output text in this event, by [`estimate`]; 0 beside a count of the
    /// provider's.
    pub output_millitokens: u64,
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
        let seen = &mut exchange.metered.output_millitokens;
        *seen = seen.saturating_add(reading.output_millitokens);
    }
}
