//! What shops tell by themselves. A webhook changes no facts: it marks licences *check before use*,
//! so that a forged or repeated one costs a call at most. The one exception is a refund, which Lemon
//! Squeezy's licence answers don't tell.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    cache_entry::CachedLicense,
    gumroad,
    lemonsqueezy::{self, number},
    shop_license::ShopLicense,
    sources::ConfiguredShops,
    validator::LicenseValidator,
};
use crate::{config::settings::LemonSqueezy, vault::KeyedHash};

/// Bytes of a webhook's body.
pub const LONGEST: u64 = 256 * 1024;
/// How long a body is known again, and how many are.
const SEEN: Duration = Duration::from_secs(72 * 3600);
const BODIES: u64 = 100_000;

/// SHA-256 of signed bodies that were acted on.
pub fn seen() -> Cache<[u8; 32], ()> {
    Cache::builder().max_capacity(BODIES).time_to_live(SEEN).build()
}

/// Why a webhook is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookError {
    /// No source of that shop takes webhooks.
    NotHere,
    /// The signature, or the secret in the path, is missing or wrong.
    Unsigned,
    /// Signed, but nothing of ours.
    Unreadable,
    /// It could not be written down; the shop sends it again.
    NotTaken,
}

/// What an event is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WebhookEvent {
    subject: WebhookSubject,
    /// Of the licence key, where the event names one: its refusal may be out of date.
    spelling: Option<LicenseId>,
    pub(crate) refund: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum WebhookSubject {
    License(LicenseId),
    /// Hashed.
    Order(String),
    Nothing,
}

/// `None` for what is not about this store, or about its test mode.
pub(crate) fn read(
    event: &Value,
    source: &LemonSqueezy,
    hasher: &KeyedHash,
) -> Option<WebhookEvent> {
    let (meta, data) = (&event["meta"], &event["data"]);
    let attributes = &data["attributes"];
    // Of another type than the documented one, it is not believed to be a sale.
    let test = |value: &Value| !matches!(value["test_mode"], Value::Null | Value::Bool(false));
    if number(&attributes["store_id"]) != Some(source.store_id)
        || ((test(meta) || test(attributes)) && !source.test_mode)
    {
        return None;
    }
    let order = |id: &Value| match number(id) {
        Some(id) => WebhookSubject::Order(lemonsqueezy::hash_order(id, hasher)),
        None => WebhookSubject::Nothing,
    };
    let subject = match data["type"].as_str().unwrap_or_default() {
        "license-keys" => match attributes["key"].as_str() {
            Some(key) => WebhookSubject::License(hasher.id(key)),
            None => order(&attributes["order_id"]),
        },
        "orders" => order(&data["id"]),
        _ => order(&attributes["order_id"]),
    };
    // A part of the money given back does not end the licence.
    let in_part = attributes["status"] == "partial_refund" || attributes["refunded"] == false;
    let refund = meta["event_name"] == "order_refunded" && !in_part;
    let spelling = attributes["key"].as_str().map(|key| hasher.spelling(key));
    Some(WebhookEvent { subject, spelling, refund })
}

/// What the head of a webhook of Lemon Squeezy must have: a signature, 32 bytes in hex. Its scheme has no time stamp.
///
/// # Errors
/// No source takes webhooks, or there is no such signature.
pub fn lemon_squeezy_signature(
    sources: &ConfiguredShops,
    header: Option<&[u8]>,
) -> Result<[u8; 32], WebhookError> {
    if sources.lemon_squeezy.iter().all(|source| source.webhook_secret.is_none()) {
        return Err(WebhookError::NotHere);
    }
    header.and_then(unhex).ok_or(WebhookError::Unsigned)
}

/// What the path of a ping of Gumroad must end in.
///
/// # Errors
/// No source takes webhooks, or none has this secret.
pub fn gumroad_secret(sources: &ConfiguredShops, secret: &str) -> Result<(), WebhookError> {
    let known = || sources.gumroad.iter().filter_map(|source| source.webhook_secret.as_ref());
    if known().next().is_none() {
        return Err(WebhookError::NotHere);
    }
    let ours = known().fold(subtle::Choice::from(0), |ours, known| {
        ours | known.expose_secret().as_bytes().ct_eq(secret.as_bytes())
    });
    if bool::from(ours) { Ok(()) } else { Err(WebhookError::Unsigned) }
}

impl LicenseValidator {
    /// Lemon Squeezy: `signature` is the HMAC-SHA256 of the raw body
    /// (<https://docs.lemonsqueezy.com/help/webhooks/signing-requests>).
    ///
    /// # Errors
    /// It is not signed with the secret of any source.
    pub async fn lemon_squeezy_webhook(
        self: &Arc<Self>,
        sources: &ConfiguredShops,
        body: &[u8],
        signature: &[u8; 32],
    ) -> Result<(), WebhookError> {
        let signed = |source: &&LemonSqueezy| is_signed(source, body, signature);
        // Two stores may have one secret.
        let signers: Vec<_> = sources.lemon_squeezy.iter().filter(signed).collect();
        if signers.is_empty() {
            return Err(WebhookError::Unsigned);
        }
        let body_id: [u8; 32] = Sha256::digest(body).into();
        if self.seen_webhooks.contains_key(&body_id) {
            return Ok(());
        }
        let event: Value = serde_json::from_slice(body).map_err(|_| WebhookError::Unreadable)?;
        let read = |source| read(&event, source, &self.hasher);
        if let Some(event) = signers.into_iter().find_map(read) {
            self.act(event, true).await?;
        }
        self.seen_webhooks.insert(body_id, ());
        Ok(())
    }

    /// Gumroad's ping: not signed, so its address is the secret and it proves nothing
    /// (<https://gumroad.com/ping>).
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn gumroad_webhook(self: &Arc<Self>, body: &[u8]) -> Result<(), WebhookError> {
        let field = |name: &str| {
            let mut fields = url::form_urlencoded::parse(body);
            fields.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
        };
        let key = field("license_key").filter(|key| !key.is_empty());
        let spelling = key.as_deref().map(|key| self.hasher.spelling(key));
        let subject = match (key, field("sale_id")) {
            (Some(key), _) => WebhookSubject::License(self.hasher.id(&key)),
            (_, Some(sale)) => WebhookSubject::Order(gumroad::hash_sale(&sale, &self.hasher)),
            _ => WebhookSubject::Nothing,
        };
        self.act(WebhookEvent { subject, spelling, refund: false }, false).await
    }

    /// Marks the licences that an event is about.
    ///
    /// # Errors
    /// It can't be known which they are, or not written down.
    async fn act(self: &Arc<Self>, event: WebhookEvent, new: bool) -> Result<(), WebhookError> {
        let licenses = match event.subject {
            WebhookSubject::License(id) => vec![id],
            WebhookSubject::Order(order) => {
                if event.refund && !self.keep_refund(&order).await {
                    return Err(WebhookError::NotTaken);
                }
                self.licenses_of(&order).await?
            }
            WebhookSubject::Nothing => Vec::new(),
        };
        let now = UnixMs::now();
        for id in licenses {
            // A key that was refused as unknown may have been sold since.
            if let Some(spelling) = &event.spelling {
                self.refused.invalidate(spelling);
                if let Some(shared) = &self.shared {
                    let _ = shared.forget_refusal(spelling).await;
                }
            }
            // Another gateway may know a licence that this one does not.
            if self.records.get(&id).is_none() {
                self.latest(&id).await.map_err(|_| WebhookError::NotTaken)?;
            }
            let change = |record: Option<&CachedLicense>| {
                let before = record.filter(|record| record.facts.is_some())?;
                let mut marked = before.mark(now, new);
                marked.refunded |= event.refund;
                (marked != *before).then_some(marked)
            };
            if self.records.update(id, change).is_some() && !self.keep_now(id).await {
                return Err(WebhookError::NotTaken);
            }
        }
        Ok(())
    }

    /// Remembers that the money of an order was given back, for a licence of it that was never used
    /// so far: Lemon Squeezy's licence answers don't tell. Whether that is on the disk.
    async fn keep_refund(&self, order: &str) -> bool {
        let id = self.hasher.refund(order);
        let refund = CachedLicense { refunded: true, ..CachedLicense::default() };
        let change = |record: Option<&CachedLicense>| record.is_none().then_some(refund);
        self.records.update(id, change).is_none() || self.keep_now(id).await
    }

    /// Whether the money of the order was given back that a licence was bought with.
    pub(super) async fn is_refunded(&self, facts: &ShopLicense) -> bool {
        let Some(order) = facts.order() else { return false };
        let kept = self.known(&self.hasher.refund(order)).await;
        kept.is_some_and(|kept| kept.record.refunded)
    }

    /// Licences bought with an order, here and at other gateways.
    async fn licenses_of(&self, order: &str) -> Result<Vec<LicenseId>, WebhookError> {
        let bought = |facts: &ShopLicense| facts.order() == Some(order);
        let mut found: BTreeSet<LicenseId> = self
            .records
            .all()
            .filter(|(_, kept)| kept.record.facts.as_ref().is_some_and(bought))
            .map(|(id, _)| id)
            .collect();
        if let Some(shared) = &self.shared {
            found.extend(shared.licenses_of(order).await.map_err(|_| WebhookError::NotTaken)?);
        }
        Ok(found.into_iter().collect())
    }
}

fn is_signed(source: &LemonSqueezy, body: &[u8], signature: &[u8; 32]) -> bool {
    let Some(secret) = &source.webhook_secret else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
        return false;
    };
    mac.update(body);
    // In constant time.
    mac.verify_slice(signature).is_ok()
}

fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    LicenseId::from_hex(std::str::from_utf8(text).ok()?).map(|bytes| bytes.0)
}
