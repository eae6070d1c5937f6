//! What a buyer may use: the plan of a licence, and the public model names it opens.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::period::Period;

/// `count` per calendar `per`; absence of a limit is `Option::None`, never a large number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub count: u64,
    pub per: Period,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSet {
    All,
    Only(Vec<Arc<str>>),
}

impl ModelSet {
    pub const NONE: Self = ModelSet::Only(Vec::new());

    pub fn allows(&self, model: &str) -> bool {
        match self {
            ModelSet::All => true,
            ModelSet::Only(names) => names.iter().any(|name| &**name == model),
        }
    }
}

/// Concurrent requests of one licence, unless its plan sets a limit: more than any app of one buyer opens,
/// and few enough that one licence can't take the places of the others.
pub const DEFAULT_CONCURRENCY: u32 = 16;

/// How an answer ends whose app disconnects in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDisconnect {
    /// The provider is left, too; what came until then is charged.
    #[default]
    Cut,
    /// It is read on for the provider's own count, within bounds.
    Drain,
}

/// What one conversation (`x-conversation-id`) may take. Each may be absent, not all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationLimits {
    /// Messages of a minute or an hour.
    pub rate: Option<Limit>,
    /// Messages of a day.
    pub messages: Option<Limit>,
    /// How often the same last turn may come within ten minutes.
    pub repeats: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub name: Arc<str>,
    pub messages: Option<Limit>,
    /// Input + output tokens, cached ones counted in full.
    pub tokens: Option<Limit>,
    pub rate: Option<Limit>,
    /// Maximum concurrent requests; `None` for `unlimited`.
    pub concurrency: Option<u32>,
    /// The plan does not set `concurrency`, so [`DEFAULT_CONCURRENCY`] applies: a request above it waits
    /// for a place before it is refused.
    pub concurrency_is_default: bool,
    pub models: ModelSet,
    /// Prompts of the configuration that it opens; their models need not be among `models`.
    pub prompts: ModelSet,
    /// Nothing but prompts may be asked.
    pub prompts_only: bool,
    /// Requests have to name their conversation, and are counted in it.
    pub conversation: Option<ConversationLimits>,
    /// How long the answer of a message (`x-message-id`) is given again to the same request.
    pub idempotency: Option<Duration>,
    pub max_output_tokens: Option<u64>,
    /// A shrunk output cap never goes below this; default 256.
    pub min_output_tokens: u64,
    pub max_input_tokens: Option<u64>,
    /// Only activated devices (`x-instance-id`) may ask.
    pub devices_required: bool,
    /// Devices of one licence, where the gateway keeps the list itself.
    pub max_devices: Option<u64>,
    pub on_disconnect: OnDisconnect,
    /// The plan's own, else `licenses.buy_url`.
    pub upgrade_url: Option<Arc<str>>,
}
