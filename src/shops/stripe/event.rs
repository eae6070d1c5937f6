//! Events: the object that each one concerns. The content of an event is not trusted.

use gatekeeper_filters::kernel::UnixMs;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::{id_of, subscription_of};

/// How old a signature may be, in milliseconds (<https://docs.stripe.com/webhooks/signature>).
const TOLERANCE: u64 = 300_000;
/// Signatures in one header: two while a secret rolls.
const MOST: usize = 8;

/// The types that something is done about, as the sweep asks for them.
pub const TYPES: [&str; 13] = [
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "invoice.paid",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "entitlements.active_entitlement_summary.updated",
];

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StripeSubject {
    Session(String),
    Subscription(String),
    Charge(String),
    Dispute { id: String, charge: Option<String> },
    Invoice { id: String, subscription: Option<String> },
    Customer(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripeEvent {
    pub id: String,
    /// In seconds.
    pub created: u64,
    pub is_live: bool,
    /// `None`: nothing is to be done.
    pub subject: Option<StripeSubject>,
}

/// `None` for what is no event.
pub fn read(event: &Value) -> Option<StripeEvent> {
    Some(StripeEvent {
        id: event["id"].as_str()?.to_owned(),
        created: event["created"].as_u64().unwrap_or_default(),
        is_live: event["livemode"].as_bool()?,
        subject: subject(event["type"].as_str()?, &event["data"]["object"]),
    })
}

fn subject(kind: &str, object: &Value) -> Option<StripeSubject> {
    if !TYPES.contains(&kind) {
        return None;
    }
    let text = |value: &Value| id_of(value).map(str::to_owned);
    if kind.starts_with("entitlements.") {
        return text(&object["customer"]).map(StripeSubject::Customer);
    }
    let id = text(&object["id"])?;
    Some(match kind {
        _ if kind.starts_with("checkout.session.") => StripeSubject::Session(id),
        _ if kind.starts_with("customer.subscription.") => StripeSubject::Subscription(id),
        _ if kind.starts_with("charge.dispute.") => {
            StripeSubject::Dispute { id, charge: text(&object["charge"]) }
        }
        "charge.refunded" => StripeSubject::Charge(id),
        _ => StripeSubject::Invoice { id, subscription: subscription_of(object) },
    })
}

/// The header `Stripe-Signature: t=...,v1=...,v1=...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripeSignature {
    at: String,
    signatures: Vec<Vec<u8>>,
}

/// Why a webhook is not taken before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureError {
    Missing,
    /// Signed more than five minutes ago, or in the future.
    Skewed,
}

/// # Errors
/// There is none, or it is too old.
pub fn signature(header: Option<&str>, now: UnixMs) -> Result<StripeSignature, SignatureError> {
    let header = header.ok_or(SignatureError::Missing)?;
    let members = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let mut times = members().filter(|(name, _)| *name == "t").map(|(_, value)| value);
    let (Some(at), None) = (times.next(), times.next()) else {
        return Err(SignatureError::Missing);
    };
    let seconds: u64 = at.parse().map_err(|_| SignatureError::Missing)?;
    let signatures: Vec<Vec<u8>> = members()
        .filter(|(name, _)| *name == "v1")
        .filter_map(|(_, value)| unhex(value))
        .take(MOST)
        .collect();
    if signatures.is_empty() {
        return Err(SignatureError::Missing);
    }
    if seconds.saturating_mul(1000).abs_diff(now.0) > TOLERANCE {
        return Err(SignatureError::Skewed);
    }
    Ok(StripeSignature { at: at.to_owned(), signatures })
}

impl StripeSignature {
    /// Whether the body was signed with this secret; takes as long whichever signature is the one.
    pub fn is_of(&self, secret: &str, body: &[u8]) -> bool {
        self.signatures.iter().fold(false, |signed, signature| {
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
                return signed;
            };
            for part in [self.at.as_bytes(), b".", body] {
                mac.update(part);
            }
            signed | mac.verify_slice(signature).is_ok()
        })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    gatekeeper_filters::kernel::LicenseId::from_hex(text).map(|bytes| bytes.0.to_vec())
}
