//! The addresses that are served.

use gatekeeper_filters::kernel::Endpoint;

use crate::shops::Shop;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteEntry {
    /// Goes to a provider.
    Provider(Endpoint),
    /// One of the prompts; the path names it.
    Prompt,
    Models,
    /// One of them; the path names it.
    Model,
    /// Anthropic's estimate of what a request weighs.
    CountTokens,
    Me,
    Activate,
    Deactivate,
    /// Of this shop.
    Webhook(&'static dyn Shop),
    Health,
}

pub(in crate::proxy) const TABLE: [(&str, &str, RouteEntry); 11] = [
    ("POST", "/v1/chat/completions", RouteEntry::Provider(Endpoint::Chat)),
    ("POST", "/chat", RouteEntry::Provider(Endpoint::Chat)),
    ("POST", "/v1/responses", RouteEntry::Provider(Endpoint::Responses)),
    ("POST", "/v1/embeddings", RouteEntry::Provider(Endpoint::Embeddings)),
    ("POST", "/v1/messages", RouteEntry::Provider(Endpoint::Messages)),
    ("POST", "/v1/messages/count_tokens", RouteEntry::CountTokens),
    ("GET", "/v1/models", RouteEntry::Models),
    ("GET", "/v1/me", RouteEntry::Me),
    ("POST", "/license/activate", RouteEntry::Activate),
    ("POST", "/license/deactivate", RouteEntry::Deactivate),
    ("GET", "/healthz", RouteEntry::Health),
];
