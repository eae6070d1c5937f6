//! `POST /webhooks/...`: what shops send.
//!
//! Who sends is unknown until the body is checked, so as little as possible is spent before: whether a source
//! takes it, and what its head must have, is decided first; then few bodies are read at one time, small and quick,
//! outside of what buyers share.

use std::time::Duration;

use gatekeeper_filters::kernel::{Code, Rejection, UnixMs};
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use crate::{
    downstream::{
        body::{self, BodyError, BodyPace},
        client_ip,
    },
    licenses::{
        issued::stripe::StripeWebhookError,
        webhook::{self, LONGEST, WebhookError},
    },
    runtime::{snapshot::Snapshot, webhook_slots::WebhookSlot},
    shops::Shop,
};

const PACE: BodyPace =
    BodyPace { rate: 16 * 1024, patience: Duration::from_secs(1), whole: Duration::from_secs(10) };

/// # Errors
/// 404 where no source takes webhooks, 401 without a right signature or secret, 413 above 256 KiB, 429 and 503 while
/// too many come at one time.
pub async fn take(
    session: &mut ServerSession,
    snapshot: &Snapshot,
    shop: &'static dyn Shop,
) -> Result<Value, BodyError> {
    let book = &snapshot.licenses;
    let (headers, path) = (&session.req_header().headers, session.req_header().uri.path());
    // An address that ends in a secret has the shop's name before it.
    let secret = path.rsplit('/').next().unwrap_or_default();
    let head =
        webhook::head(shop, &book.sources, headers, secret, UnixMs::now()).map_err(reject)?;
    let (place, body) = read(session, snapshot).await?;
    let taken = book.validator.webhook(shop, &book.sources, (&head, &body)).await;
    answer(&place, taken)
}

/// The same of Stripe, whose events are acted on after the place is given back: what they name is asked for.
///
/// # Errors
/// As [`take`].
pub async fn take_stripe(
    session: &mut ServerSession,
    snapshot: &Snapshot,
) -> Result<Value, BodyError> {
    let not_here = || reject(WebhookError::NotHere);
    let book = snapshot.licenses.issued.as_deref().ok_or_else(not_here)?;
    let mut signatures = session.req_header().headers.get_all("stripe-signature").iter();
    let header = signatures.next().and_then(|value| value.to_str().ok());
    let header = header.filter(|_| signatures.next().is_none());
    let head = book.stripe_head(header, UnixMs::now()).map_err(|why| reject(why.into()))?;
    let (place, body) = read(session, snapshot).await?;
    let event = book.stripe_event(&head, &body);
    place.of.heard(place.address, event.is_ok());
    drop(place);
    let taken = match event {
        Ok(event) => book.take_event(&event).await,
        Err(refused) => Err(refused),
    };
    taken.map(|()| json!({"status": "ok"})).map_err(|why| reject(why.into()).into())
}

impl From<StripeWebhookError> for WebhookError {
    fn from(why: StripeWebhookError) -> Self {
        match why {
            StripeWebhookError::NotHere => WebhookError::NotHere,
            StripeWebhookError::Unsigned => WebhookError::Unsigned,
            StripeWebhookError::Skewed => WebhookError::Skewed,
            StripeWebhookError::Unreadable => WebhookError::Unreadable,
            StripeWebhookError::NotTaken => WebhookError::NotTaken,
        }
    }
}

async fn read<'a>(
    session: &mut ServerSession,
    snapshot: &'a Snapshot,
) -> Result<(WebhookSlot<'a>, bytes::Bytes), BodyError> {
    let places = &snapshot.webhooks;
    let place = places.take(client_ip::limited(session, &snapshot.settings.server))?;
    places.buffered.resize(u64::MAX, LONGEST);
    let body = body::read_at(session, LONGEST, PACE, &mut places.buffered.share()).await?;
    Ok((place, body))
}

fn answer(place: &WebhookSlot<'_>, taken: Result<(), WebhookError>) -> Result<Value, BodyError> {
    match taken {
        // That it could not be written down is no fault of the sender.
        Ok(()) | Err(WebhookError::NotTaken) => place.of.heard(place.address, true),
        Err(_) => place.of.heard(place.address, false),
    }
    taken.map(|()| json!({"status": "ok"})).map_err(|refused| reject(refused).into())
}

fn reject(refused: WebhookError) -> Rejection {
    match refused {
        WebhookError::NotHere => {
            Rejection::new(Code::NotFound, "There is nothing at this address.")
        }
        WebhookError::Unsigned => {
            Rejection::new(Code::LicenseMissing, "The signature is missing or wrong.")
                .internal("a webhook whose signature fits no webhook_secret")
        }
        WebhookError::Skewed => {
            let message = "The signature is too old, or from the future. Please check the clocks.";
            Rejection::new(Code::LicenseMissing, message).internal(
                "a webhook whose time stamp is more than 5 minutes from this machine's clock",
            )
        }
        WebhookError::NotTaken => Rejection::new(
            Code::StoreUnavailable,
            "The webhook could not be taken just now. Please send it again.",
        )
        .internal("a webhook could not be written down")
        .retry_after(5),
        WebhookError::Unreadable => {
            Rejection::new(Code::InvalidRequest, "The body is not valid JSON.")
        }
    }
}
