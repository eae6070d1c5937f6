//! Stripe's webhooks.

use gatekeeper_filters::kernel::UnixMs;
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{apply::ApplyError, ask::is_of_mode};
use crate::{
    licenses::issued::book::IssuedBook,
    shops::stripe::event::{self, SignatureError, StripeEvent, StripeSignature, StripeSubject},
};

/// Why a webhook is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripeWebhookError {
    /// No `stripe.webhook_secret`.
    NotHere,
    Unsigned,
    /// The time stamp is more than five minutes from our clock.
    Skewed,
    Unreadable,
    /// Stripe, or the store, does not answer: it comes again.
    NotTaken,
}

impl IssuedBook {
    /// What the head of a webhook must have.
    ///
    /// # Errors
    /// None are taken, or the head proves nothing.
    pub fn stripe_head(
        &self,
        header: Option<&str>,
        now: UnixMs,
    ) -> Result<StripeSignature, StripeWebhookError> {
        let stripe = self.source.stripe.as_ref();
        if stripe.is_none_or(|stripe| stripe.webhook_secret.is_none()) {
            return Err(StripeWebhookError::NotHere);
        }
        event::signature(header, now).map_err(|why| match why {
            SignatureError::Missing => StripeWebhookError::Unsigned,
            SignatureError::Skewed => StripeWebhookError::Skewed,
        })
    }

    /// The event of a body that is signed.
    ///
    /// # Errors
    /// It is not signed with our secret, or is no event.
    pub fn stripe_event(
        &self,
        signature: &StripeSignature,
        body: &[u8],
    ) -> Result<StripeEvent, StripeWebhookError> {
        let secret = self.source.stripe.as_ref().and_then(|stripe| stripe.webhook_secret.as_ref());
        let secret = secret.ok_or(StripeWebhookError::NotHere)?;
        if !signature.is_of(secret.expose_secret(), body) {
            return Err(StripeWebhookError::Unsigned);
        }
        let event: Value =
            serde_json::from_slice(body).map_err(|_| StripeWebhookError::Unreadable)?;
        event::read(&event).ok_or(StripeWebhookError::Unreadable)
    }

    /// Acts on an event.
    ///
    /// # Errors
    /// Stripe or the store does not answer.
    pub async fn take_event(&self, event: &StripeEvent) -> Result<(), StripeWebhookError> {
        if let Some(StripeSubject::Session(id)) = &event.subject {
            self.announce(id);
        }
        match self.act(event).await {
            Ok(()) => Ok(()),
            Err(why) => {
                log::warn!("Stripe: an event is left for later: {why}. event={}", event.id);
                Err(StripeWebhookError::NotTaken)
            }
        }
    }

    /// Acts on an event unless that was done before.
    pub(super) async fn act(&self, event: &StripeEvent) -> Result<(), ApplyError> {
        let Some(subject) = &event.subject else { return Ok(()) };
        if !is_of_mode(&self.account, event.is_live) {
            return Ok(());
        }
        let seen: [u8; 32] = Sha256::digest(event.id.as_bytes()).into();
        if self.validator.seen_webhooks.contains_key(&seen) {
            return Ok(());
        }
        // An event without a licence here may concern one that is being made or fetched.
        if self.look(subject).await? {
            self.validator.seen_webhooks.insert(seen, ());
        }
        Ok(())
    }
}
