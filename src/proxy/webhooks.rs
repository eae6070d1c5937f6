//! `POST /webhooks/...`: what shops send.

use gatekeeper_filters::kernel::{Code, Reject};
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::body::{self, BodyError};
use crate::{
    licenses::webhook::{LONGEST, Refused},
    snapshot::Snapshot,
};

/// # Errors
/// 401 without a right signature, 404 where no source takes webhooks, 413 above 64 KiB.
pub async fn lemon_squeezy(
    session: &mut ServerSession,
    snapshot: &Snapshot,
) -> Result<Value, BodyError> {
    let signature = session.req_header().headers.get("x-signature").cloned();
    let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await?;
    let book = &snapshot.licenses;
    let signature = signature.as_ref().map(|value| value.as_bytes());
    let taken = book.desk.lemon_squeezy_webhook(&book.sources, &body, signature).await;
    taken.map(|()| json!({"status": "ok"})).map_err(|refused| reject(refused).into())
}

/// # Errors
/// 404 for a wrong secret, 413 above 64 KiB.
pub async fn gumroad(session: &mut ServerSession, snapshot: &Snapshot) -> Result<Value, BodyError> {
    let path = session.req_header().uri.path().to_owned();
    let secret = path.strip_prefix(super::gate::GUMROAD).unwrap_or_default();
    let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await?;
    let book = &snapshot.licenses;
    let taken = book.desk.gumroad_webhook(&book.sources, secret, &body).await;
    taken.map(|()| json!({"status": "ok"})).map_err(|refused| reject(refused).into())
}

fn reject(refused: Refused) -> Reject {
    match refused {
        Refused::NotHere => Reject::new(Code::NotFound, "There is nothing at this address."),
        Refused::Unsigned => {
            Reject::new(Code::LicenseMissing, "The signature is missing or wrong.")
                .internal("a webhook whose signature fits no webhook_secret")
        }
        Refused::NotTaken => Reject::new(
            Code::StoreUnavailable,
            "The webhook could not be taken just now. Please send it again.",
        )
        .internal("a webhook could not be written down")
        .retry_after(5),
        Refused::Unreadable => Reject::new(Code::InvalidRequest, "The body is not valid JSON."),
    }
}
