//! `POST /webhooks/...`: what shops send.
//!
//! Who sends is unknown until the body is checked, so as little as possible is spent before: whether a source
//! takes it, and what its head must have, is decided first; then few bodies are read at one time, small and quick,
//! outside of what buyers share.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Code, Rejection, UnixMs};
use parking_lot::Mutex;
use pingora_core::protocols::http::ServerSession;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use crate::{
    downstream::{
        body::{self, BodyError, BodyPace},
        client_ip,
        memory_budget::MemoryBudget,
        respond,
    },
    licenses::webhook::{self, LONGEST, WebhookError},
    runtime::snapshot::Snapshot,
    shops::Shop,
};

/// Bodies that are read at one time.
const AT_ONCE: usize = 16;
/// Beside them, from addresses whose last event was genuine.
const FOR_KNOWN: usize = 4;
/// Of one address.
const OF_ADDRESS: usize = 2;
/// Addresses that are remembered; a shop sends from a few.
const KNOWN: usize = 64;
const PACE: BodyPace =
    BodyPace { rate: 16 * 1024, patience: Duration::from_secs(1), whole: Duration::from_secs(10) };

/// Places for webhooks whose bodies are being read.
#[derive(Default)]
pub struct WebhookSlots {
    taken: Mutex<SlotTaken>,
    /// Theirs alone: each body has its own bound.
    buffered: Arc<MemoryBudget>,
}

#[derive(Default)]
struct SlotTaken {
    all: usize,
    by_address: FxHashMap<IpAddr, usize>,
    /// The latest at the back.
    known: VecDeque<IpAddr>,
}

/// One place, until it is dropped.
struct WebhookSlot<'a> {
    of: &'a WebhookSlots,
    address: Option<IpAddr>,
}

impl Drop for WebhookSlot<'_> {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all -= 1;
        if let Some(address) = &self.address
            && let Some(count) = taken.by_address.get_mut(address)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(address);
            }
        }
    }
}

impl WebhookSlots {
    fn take(&self, address: Option<IpAddr>) -> Result<WebhookSlot<'_>, Rejection> {
        let mut taken = self.taken.lock();
        let is_known = address.is_some_and(|address| taken.known.contains(&address));
        if taken.all >= AT_ONCE + if is_known { FOR_KNOWN } else { 0 } {
            return Err(respond::too_busy("webhooks: all places are taken"));
        }
        if let Some(address) = address {
            let count = taken.by_address.entry(address).or_default();
            if *count >= OF_ADDRESS {
                let message = "Too many webhooks at one time. Please send it again in a moment.";
                return Err(Rejection::new(Code::RateLimited, message).retry_after(1));
            }
            *count += 1;
        }
        taken.all += 1;
        Ok(WebhookSlot { of: self, address })
    }

    /// Remembers whether an address' last event was genuine.
    fn heard(&self, address: Option<IpAddr>, is_genuine: bool) {
        let Some(address) = address else { return };
        let mut taken = self.taken.lock();
        taken.known.retain(|known| *known != address);
        if is_genuine {
            if taken.known.len() >= KNOWN {
                taken.known.pop_front();
            }
            taken.known.push_back(address);
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn places_are_few_and_some_are_for_the_known() {
        let places = WebhookSlots::default();
        places.heard(at(100), true);
        let mut taken: Vec<_> = (0..16).map(|n| places.take(at(n / 2)).ok().unwrap()).collect();
        let refused = |address| places.take(address).err().map(|reject| reject.code);
        assert_eq!(refused(at(200)), Some(Code::UpstreamExhausted));
        assert_eq!(refused(None), Some(Code::UpstreamExhausted));
        taken.extend((0..2).map(|_| places.take(at(100)).ok().unwrap()));
        assert_eq!(refused(at(100)), Some(Code::RateLimited));
        taken.drain(..3);
        assert_eq!(refused(at(7)), Some(Code::RateLimited), "two of one address");
        assert_eq!(refused(at(200)), None);
        places.heard(at(100), false);
        drop(taken);
        let taken = places.taken.lock();
        assert_eq!((taken.all, taken.by_address.len(), taken.known.len()), (0, 0, 0));
    }
}
