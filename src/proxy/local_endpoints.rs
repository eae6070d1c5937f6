//! Answers the gateway gives itself: what a plan may use, what is left of it, devices, webhooks,
//! and that it lives. They cost nothing.

use bytes::Bytes;
use gatekeeper_filters::{
    kernel::{Endpoint, License, LimitUsage, Rejection, UnixMs},
    route,
};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use serde_json::{Value, json};

use super::{
    claim, count_tokens, devices,
    identify::{DeviceRequirement, license},
    license_api,
    routes::{self, RouteEntry},
    webhooks,
};
use crate::{
    downstream::{body::BodyError, respond},
    runtime::snapshot::Snapshot,
};

/// Metric label.
pub fn name(entry: RouteEntry) -> &'static str {
    match entry {
        RouteEntry::Models => "models",
        RouteEntry::Model => "model",
        RouteEntry::CountTokens => "count_tokens",
        RouteEntry::Me => "me",
        RouteEntry::Activate => "activate",
        RouteEntry::Deactivate => "deactivate",
        RouteEntry::Webhook(shop) => shop.constants().endpoint,
        RouteEntry::StripeWebhook => "webhook_stripe",
        RouteEntry::Claim => "claim",
        RouteEntry::ClaimCode => "license_claim",
        RouteEntry::LicenseApi(_) => "license_api",
        RouteEntry::Health => "healthz",
        RouteEntry::Prompt => Endpoint::Chat.name(),
        RouteEntry::Provider(endpoint) => endpoint.name(),
    }
}

/// Answers; the status.
///
/// # Errors
/// Why it is refused, or that the app is gone.
pub async fn answer(
    entry: RouteEntry,
    session: &mut ServerSession,
    snapshot: &Snapshot,
    request_id: &str,
) -> Result<u16, BodyError> {
    let body = match entry {
        RouteEntry::Models => {
            models(&license(session, snapshot, DeviceRequirement::Counts).await?.0, snapshot)
        }
        RouteEntry::Model => {
            let license = license(session, snapshot, DeviceRequirement::Counts).await?.0;
            let name = routes::model_of(session.req_header().raw_path()).unwrap_or_default();
            let name = percent_decoded(name);
            let name = String::from_utf8_lossy(&name);
            match allowed(&license, snapshot).find(|known| *known == name) {
                Some(known) => model(known),
                None => model(&route::find(&snapshot.settings.models, Some(&license), &name)?.name),
            }
        }
        RouteEntry::CountTokens => count_tokens::answer(session, snapshot).await?,
        RouteEntry::Me => {
            me(&license(session, snapshot, DeviceRequirement::Counts).await?.0, snapshot).await?
        }
        RouteEntry::Activate => devices::activate(session, snapshot).await?,
        RouteEntry::Deactivate => devices::deactivate(session, snapshot).await?,
        RouteEntry::Webhook(shop) => webhooks::take(session, snapshot, shop).await?,
        RouteEntry::Health | RouteEntry::Prompt | RouteEntry::Provider(_) => {
            json!({"status": "ok"})
        }
        RouteEntry::StripeWebhook => webhooks::take_stripe(session, snapshot).await?,
        RouteEntry::Claim => return claim::answer(session, snapshot, request_id).await,
        RouteEntry::ClaimCode => claim::exchange(session, snapshot).await?,
        RouteEntry::LicenseApi(call) => {
            return license_api::answer(call, session, snapshot, request_id).await;
        }
    };
    let body = Bytes::from(body.to_string());
    let head = head(body.len(), request_id).map_err(BodyError::Gone)?;
    respond::write(session, head, body).await.map_err(BodyError::Gone)?;
    Ok(200)
}

fn head(length: usize, request_id: &str) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(200, Some(6))?;
    head.insert_header("content-type", "application/json")?;
    head.insert_header("cache-control", "no-store")?;
    head.insert_header("x-request-id", request_id)?;
    head.set_content_length(length)?;
    Ok(head)
}

fn allowed<'a>(license: &'a License, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a str> {
    let (plan, settings) = (&license.plan, &snapshot.settings);
    let models = settings.models.keys().map(|name| &**name);
    let models = models.filter(|name| !plan.prompts_only && plan.models.allows(name));
    let prompts = settings.prompts.values().filter(|prompt| plan.prompts.allows(&prompt.name));
    models.chain(prompts.map(|prompt| &*prompt.public_name))
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

async fn me(license: &License, snapshot: &Snapshot) -> Result<Value, Rejection> {
    let plan = &license.plan;
    let balance = snapshot
        .ledger
        .balance(&license.id, plan.messages, plan.tokens, UnixMs::now())
        .await
        .map_err(|_| gatekeeper_filters::rate_limit::store_unavailable())?;
    let limit = |spent: LimitUsage| {
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
        "id": snapshot.licenses.validator.hasher.public_id(&license.id),
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
