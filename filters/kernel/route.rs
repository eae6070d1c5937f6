//! Where a request may go: public model names and the targets behind them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::price::Price;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
}

impl Dialect {
    pub fn name(self) -> &'static str {
        match self {
            Dialect::OpenAi => "openai",
            Dialect::Anthropic => "anthropic",
            Dialect::Gemini => "gemini",
        }
    }
}

/// One upstream model at one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Place in the snapshot's list of providers.
    pub provider: usize,
    pub provider_name: Arc<str>,
    /// The provider's own model name.
    pub model: Arc<str>,
    /// `provider/model`, as answers and records show it.
    pub label: Arc<str>,
    pub dialect: Dialect,
    /// Tokens reserved for one image part.
    pub image_tokens: u64,
    /// `None` where the operator gave no price; then an answer costs nothing.
    pub price: Option<Price>,
}

/// A public model name: its targets in order, first choice first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Model {
    pub name: Arc<str>,
    pub targets: Vec<Arc<Target>>,
    /// Content part types beside text and images that the targets take: `input_audio`, `file`, `video_url`.
    pub accepts: Vec<Arc<str>>,
    /// An answer is read to its end before it is sent, so that even a break in the middle is mended.
    pub whole: bool,
    pub timeouts: ModelTimeouts,
    /// A conversation that has no name of its own is known by its first messages.
    pub sticky: bool,
}

/// What a model says of its timeouts; where it says nothing, the provider's hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelTimeouts {
    pub first_byte: Option<Duration>,
    pub first_token: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

pub type Models = BTreeMap<Arc<str>, Arc<Model>>;

/// The outcome of routing one request.
#[derive(Debug, Clone)]
pub struct Route {
    pub model: Arc<Model>,
    /// Targets of `model` that speak the endpoint's dialect, in order, never empty.
    pub targets: Vec<Arc<Target>>,
    /// For `x-gatekeeper-route`: why these targets.
    pub why: &'static str,
}
