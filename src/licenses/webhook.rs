//! Webhooks of shops. A webhook changes no stored facts: it marks licences *check before use*, so that a forged
//! or repeated one costs one call at most. The exception is a refund, which Lemon Squeezy's licence answers do
//! not contain.

use std::{collections::BTreeSet, sync::Arc};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use http::HeaderMap;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::{cache_entry::CachedLicense, sources::ConfiguredShops, validator::LicenseValidator};
use crate::{
    config::settings::ShopAccount,
    shops::{
        Scheme, Shop, ShopLicense, WebhookEvent, WebhookSubject,
        signature::{self, HeadError, Signature},
    },
};

/// Bytes of a webhook's body.
pub const LONGEST: u64 = 256 * 1024;

/// Why a webhook is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookError {
    /// No source of that shop takes webhooks.
    NotHere,
    /// The signature, or the secret in the path, is missing or wrong.
    Unsigned,
    /// The signature's time stamp is more than five minutes from our clock.
    Skewed,
    /// Signed, but nothing of ours.
    Unreadable,
    /// It could not be written down; the shop sends it again.
    NotTaken,
}

/// What is known of a webhook before its body is read.
#[derive(Debug)]
pub enum WebhookHead {
    Signed(Signature),
    /// The secret in the address was right.
    Secret,
}

/// What the head of a webhook must have; `secret` is the last part of its address.
///
/// # Errors
/// No source of the shop takes webhooks, or the head proves nothing.
pub fn head(
    shop: &'static dyn Shop,
    sources: &ConfiguredShops,
    headers: &HeaderMap,
    secret: &str,
    now: UnixMs,
) -> Result<WebhookHead, WebhookError> {
    let known =
        || sources.accounts(shop).filter_map(|account| account.source.webhook_secret.as_ref());
    let Some(webhook) = shop.webhook().filter(|_| known().next().is_some()) else {
        return Err(WebhookError::NotHere);
    };
    if webhook.scheme() == Scheme::Path {
        let ours = known().fold(subtle::Choice::from(0), |ours, known| {
            ours | known.expose_secret().as_bytes().ct_eq(secret.as_bytes())
        });
        return if bool::from(ours) {
            Ok(WebhookHead::Secret)
        } else {
            Err(WebhookError::Unsigned)
        };
    }
    match signature::of_head(webhook.scheme(), headers, now) {
        Ok(signature) => Ok(WebhookHead::Signed(signature)),
        Err(HeadError::Unsigned) => Err(WebhookError::Unsigned),
        Err(HeadError::Skewed) => Err(WebhookError::Skewed),
    }
}

impl LicenseValidator {
    /// Acts on a webhook whose head was taken.
    ///
    /// # Errors
    /// It is not signed with the secret of any source, or is nothing that the shop documents.
    pub async fn webhook(
        self: &Arc<Self>,
        shop: &'static dyn Shop,
        sources: &ConfiguredShops,
        (head, body): (&WebhookHead, &[u8]),
    ) -> Result<(), WebhookError> {
        let webhook = shop.webhook().ok_or(WebhookError::NotHere)?;
        // Two stores may have one secret.
        let senders: Vec<_> =
            sources.accounts(shop).filter(|account| is_from(account, head, body)).collect();
        if senders.is_empty() {
            return Err(WebhookError::Unsigned);
        }
        let id = match head {
            WebhookHead::Signed(signature) => Some(signature.event_id(body)),
            WebhookHead::Secret => None,
        };
        self.health(shop).tell_event(UnixMs::now());
        if id.is_some_and(|id| self.seen_webhooks.contains_key(&id)) {
            return Ok(());
        }
        for account in senders {
            let read = webhook.read(body, &account.source, &self.hasher);
            if let Some(event) = read.map_err(|_| WebhookError::Unreadable)? {
                self.act(event, id.is_some()).await?;
                break;
            }
        }
        if let Some(id) = id {
            self.seen_webhooks.insert(id, ());
        }
        Ok(())
    }

    /// Marks the licences that an event is about.
    ///
    /// # Errors
    /// It can't be known which they are, or not written down.
    async fn act(self: &Arc<Self>, event: WebhookEvent, new: bool) -> Result<(), WebhookError> {
        let mut licenses = BTreeSet::new();
        for subject in &event.subjects {
            match subject {
                WebhookSubject::License(id) => drop(licenses.insert(*id)),
                WebhookSubject::Reference(reference) => {
                    if event.refund && !self.keep_refund(reference).await {
                        return Err(WebhookError::NotTaken);
                    }
                    licenses.extend(self.licenses_of(reference).await?);
                }
            }
        }
        // A key that was refused as unknown may have been sold since.
        if let Some(spelling) = &event.spelling {
            self.refused.invalidate(spelling);
            if let Some(redis) = &self.redis_cache {
                let _ = redis.forget_refusal(spelling).await;
            }
        }
        let now = UnixMs::now();
        for id in licenses {
            // Another gateway may know a licence that this one does not.
            if self.memory_cache.get(&id).is_none() {
                self.latest(&id).await.map_err(|_| WebhookError::NotTaken)?;
            }
            let change = |record: Option<&CachedLicense>| {
                let before = record.filter(|record| record.facts.is_some())?;
                let mut marked = before.mark(now, new);
                marked.refunded |= event.refund;
                (marked != *before).then_some(marked)
            };
            if self.memory_cache.update(id, change).is_some() && !self.keep_now(id).await {
                return Err(WebhookError::NotTaken);
            }
        }
        Ok(())
    }

    /// Records that an order was refunded, for a licence that was never used so far: Lemon Squeezy's
    /// licence answers do not contain it. Whether that is on the disk.
    async fn keep_refund(&self, order: &str) -> bool {
        let id = self.hasher.refund(order);
        let refund = CachedLicense { refunded: true, ..CachedLicense::default() };
        let change = |record: Option<&CachedLicense>| record.is_none().then_some(refund);
        self.memory_cache.update(id, change).is_none() || self.keep_now(id).await
    }

    /// Whether the money of the order was given back that a licence was bought with.
    pub(super) async fn is_refunded(&self, facts: &ShopLicense) -> bool {
        let Some(order) = facts.order() else { return false };
        let kept = self.known(&self.hasher.refund(order)).await;
        kept.is_some_and(|kept| kept.record.refunded)
    }

    /// Licences bought with an order, here and at other gateways.
    pub(super) async fn licenses_of(&self, order: &str) -> Result<Vec<LicenseId>, WebhookError> {
        let bought = |facts: &ShopLicense| facts.references().any(|known| known == order);
        let mut found: BTreeSet<LicenseId> = self
            .memory_cache
            .all()
            .filter(|(_, kept)| kept.record.facts.as_ref().is_some_and(bought))
            .map(|(id, _)| id)
            .collect();
        if let Some(redis) = &self.redis_cache {
            found.extend(redis.licenses_of(order).await.map_err(|_| WebhookError::NotTaken)?);
        }
        Ok(found.into_iter().collect())
    }
}

fn is_from(account: &ShopAccount, head: &WebhookHead, body: &[u8]) -> bool {
    let secret = account.source.webhook_secret.as_ref();
    match head {
        // Whose of several secrets it was makes no difference: the event proves nothing.
        WebhookHead::Secret => secret.is_some(),
        WebhookHead::Signed(signature) => {
            secret.is_some_and(|secret| signature.is_of(secret.expose_secret(), body))
        }
    }
}
