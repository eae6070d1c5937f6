//! The addresses that are served.

use gatekeeper_filters::kernel::Endpoint;

use crate::{licenses::issued::AppCall, shops::Shop};

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
    StripeWebhook,
    /// The page on which a buyer finds the key.
    Claim,
    /// Where an app takes it.
    ClaimCode,
    /// What apps ask that were written for Lemon Squeezy.
    LicenseApi(AppCall),
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

/// Served where the configuration says so.
pub(in crate::proxy) const OPTIONAL: [(&str, &str, RouteEntry); 6] = [
    ("POST", "/webhooks/stripe", RouteEntry::StripeWebhook),
    ("GET", "/claim", RouteEntry::Claim),
    ("POST", "/license/claim", RouteEntry::ClaimCode),
    ("POST", "/v1/licenses/activate", RouteEntry::LicenseApi(AppCall::Activate)),
    ("POST", "/v1/licenses/validate", RouteEntry::LicenseApi(AppCall::Validate)),
    ("POST", "/v1/licenses/deactivate", RouteEntry::LicenseApi(AppCall::Deactivate)),
];
