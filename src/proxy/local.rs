//! Answers the gateway gives itself: what a plan may use, what is left of it, devices, webhooks,
//! and that it lives. They cost nothing.

use bytes::Bytes;
use gatekeeper_filters::{
    kernel::{Asking, Credential, Dialect, License, Licenses, Reject, Spent, UnixMs},
    license, route,
};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use serde_json::{Value, json};

use super::{
    address,
    body::BodyError,
    count_tokens, devices,
    gate::{self, Entry},
    respond, webhooks,
};
use crate::{downstream::connection::Connection, snapshot::Snapshot};

/// Metric label.
pub fn name(entry: Entry) -> &'static str {
    match entry {
        Entry::Models => "models",
        Entry::Model => "model",
        Entry::CountTokens => "count_tokens",
        Entry::Me => "me",
        Entry::Activate => "activate",
        Entry::Deactivate => "deactivate",
        Entry::Webhook(shop) => shop.endpoint(),
        Entry::Health => "healthz",
        Entry::Provider(endpoint) => endpoint.name(),
    }
}

/// # Errors
/// Why it is refused, or that the app is gone.
pub async fn answer(
    entry: Entry,
    session: &mut ServerSession,
    snapshot: &Snapshot,
    request_id: &str,
) -> Result<(), BodyError> {
    let body = match entry {
        Entry::Models => models(&license(session, snapshot, Device::Counts).await?.0, snapshot),
        Entry::Model => {
            let license = license(session, snapshot, Device::Counts).await?.0;
            let name = gate::model_of(session.req_header().raw_path()).unwrap_or_default();
            let name = percent_decoded(name);
            let name = String::from_utf8_lossy(&name);
            model(&route::find(&snapshot.settings.models, Some(&license), &name)?.name)
        }
        Entry::CountTokens => count_tokens::answer(session, snapshot).await?,
        Entry::Me => me(&license(session, snapshot, Device::Counts).await?.0, snapshot).await?,
        Entry::Activate => devices::activate(session, snapshot).await?,
        Entry::Deactivate => devices::deactivate(session, snapshot).await?,
        Entry::Webhook(shop) => webhooks::take(session, snapshot, shop).await?,
        Entry::Health | Entry::Provider(_) => json!({"status": "ok"}),
    };
    let body = Bytes::from(body.to_string());
    let head = head(body.len(), request_id).map_err(BodyError::Gone)?;
    respond::write(session, head, body).await.map_err(BodyError::Gone)
}

fn head(length: usize, request_id: &str) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(200, Some(6))?;
    head.insert_header("content-type", "application/json")?;
    head.insert_header("cache-control", "no-store")?;
    head.insert_header("x-request-id", request_id)?;
    head.set_content_length(length)?;
    Ok(head)
}

/// Whether a plan that requires devices does so here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    Counts,
    /// Devices come and go here.
    IsTheMatter,
}

/// Whose key it is.
///
/// # Errors
/// As the filter `license`.
pub(super) async fn license(
    session: &ServerSession,
    snapshot: &Snapshot,
    device: Device,
) -> Result<(License, Credential), Reject> {
    let headers = &session.req_header().headers;
    let credential = gate::credential(headers, Dialect::OpenAi)?;
    let instance = gate::instance_id(headers)?;
    let asking = Asking {
        credential: &credential,
        address: address::of(session, &snapshot.settings.server.trusted_proxies),
        instance: instance.as_deref(),
        now: UnixMs::now(),
    };
    let standing = match device {
        Device::Counts => snapshot.licenses.check(&asking).await,
        Device::IsTheMatter => snapshot.licenses.identify(&asking).await,
    };
    let license = license::decide(standing, snapshot.settings.licenses.buy_url.as_ref())?;
    if let Some(connection) = Connection::of(session) {
        connection.license();
    }
    Ok((license, credential))
}

fn allowed<'a>(license: &'a License, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a str> {
    let names = snapshot.settings.models.keys().map(|name| &**name);
    names.filter(|name| license.plan.models.allows(name))
}

fn models(license: &License, snapshot: &Snapshot) -> Value {
    let data: Vec<Value> = allowed(license, snapshot).map(model).collect();
    json!({"object": "list", "data": data})
}

fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "gatekeeper"})
}

/// SDKs escape what a name may hold beside letters.
fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let digit = |at: usize| name.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut decoded, mut at) = (Vec::with_capacity(name.len()), 0);
    while let Some(byte) = name.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

async fn me(license: &License, snapshot: &Snapshot) -> Result<Value, Reject> {
    let plan = &license.plan;
    let balance = snapshot
        .ledger
        .balance(&license.id, plan.messages, plan.tokens, UnixMs::now())
        .await
        .map_err(|_| gatekeeper_filters::rate_limit::store_unavailable())?;
    let limit = |spent: Spent| {
        spent.limit.map(|limit| {
            json!({
                "limit": limit,
                "used": spent.used,
                "left": spent.left,
                "resets_at": spent.resets_at.map(|at| at.to_rfc3339().to_string()),
            })
        })
    };
    Ok(json!({
        "plan": &*plan.name,
        "status": "valid",
        "until": license.until.map(|at| at.to_rfc3339().to_string()),
        "limits": {
            "messages": limit(balance.messages),
            "tokens": limit(balance.tokens),
        },
        "models": allowed(license, snapshot).collect::<Vec<_>>(),
        "devices": snapshot.licenses.validator.devices_of(license).await.map(devices::to_json),
    }))
}
