//! `POST /license/activate` and `/license/deactivate`: a device takes a place, or gives it back. The
//! answers are ours, whatever the shop says.

use gatekeeper_filters::kernel::{Code, Dialect, Rejection, json::Document};
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::{
    identify::{DeviceRequirement, license},
    routes,
};
use crate::{
    downstream::{
        body::{self, BodyError},
        client_ip,
    },
    licenses::devices::Devices,
    runtime::snapshot::Snapshot,
};

/// Bytes of a body.
const LONGEST: u64 = 4 * 1024;
/// Characters of a device's name.
const LONGEST_NAME: usize = 64;

/// `{"name"}` → `{"instance_id", "devices"}`
///
/// # Errors
/// 400 for the body, and what [`crate::licenses::LicenseValidator::activate`] says.
pub async fn activate(
    session: &mut ServerSession,
    snapshot: &Snapshot,
) -> Result<Value, BodyError> {
    let license = license(session, snapshot, DeviceRequirement::IsTheMatter).await;
    let is_first = license.as_ref().is_err_and(|reject| reject.code == Code::DeviceLimit);
    if let (Err(reject), false) = (&license, is_first) {
        return Err(reject.clone().into());
    }
    let body = object(session, snapshot).await?;
    let name = body["name"].as_str().map(str::trim).unwrap_or_default();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control)
    {
        let message = format!("name must be the device's name, at most {LONGEST_NAME} characters.");
        return Err(Rejection::field("name", message).into());
    }
    let book = &snapshot.licenses;
    let (instance, devices) = match license {
        Ok((license, credential)) => book
            .validator
            .activate(&book.sources, &license, &credential, name)
            .await
            .map_err(|reject| reject.upgrade_url(license.plan.upgrade_url.clone()))?,
        Err(reject) => first(session, snapshot, name).await.unwrap_or(Err(reject))?,
    };
    Ok(json!({"instance_id": instance, "devices": to_json(devices)}))
}

/// A device of a key that its shop knows only together with one.
async fn first(
    session: &ServerSession,
    snapshot: &Snapshot,
    name: &str,
) -> Option<Result<(String, Devices), Rejection>> {
    let credential = routes::credential(&session.req_header().headers, Dialect::OpenAi).ok()?;
    let address = client_ip::of(session, &snapshot.settings.server.trusted_proxies);
    let book = &snapshot.licenses;
    let asked = (&credential, address);
    let activated = book.validator.activate_first(&book.sources, asked, name).await?;
    let buy_url = snapshot.settings.licenses.buy_url.clone();
    Some(match activated {
        Ok((_, instance, devices)) => Ok((instance, devices)),
        Err(reject) => Err(reject.upgrade_url(buy_url)),
    })
}

/// `{"instance_id"}`, or the header `x-instance-id` → `{"devices"}`
///
/// # Errors
/// 400 for the body, and what [`crate::licenses::LicenseValidator::deactivate`] says.
pub async fn deactivate(
    session: &mut ServerSession,
    snapshot: &Snapshot,
) -> Result<Value, BodyError> {
    let (license, credential) = license(session, snapshot, DeviceRequirement::IsTheMatter).await?;
    let header = routes::instance_id(&session.req_header().headers)?;
    let body = object(session, snapshot).await?;
    let instance = match (body["instance_id"].as_str(), &header) {
        (Some(instance), _) if routes::is_instance_id(instance) => instance,
        (None, Some(header)) => header,
        _ => {
            let message = "instance_id must be what the activation answered.";
            return Err(Rejection::field("instance_id", message).into());
        }
    };
    let book = &snapshot.licenses;
    let devices = book.validator.deactivate(&book.sources, &license, &credential, instance).await?;
    Ok(json!({"devices": to_json(devices)}))
}

pub fn to_json(devices: Devices) -> Value {
    json!({"used": devices.used, "max": devices.max})
}

/// The body, an object; no body at all is an empty one.
async fn object(session: &mut ServerSession, snapshot: &Snapshot) -> Result<Value, BodyError> {
    let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await?;
    if body.is_empty() {
        return Ok(json!({}));
    }
    // Strict as chat bodies are: no key twice.
    let is_strict = Document::parse(body.clone()).is_ok();
    match serde_json::from_slice(&body) {
        Ok(body @ Value::Object(_)) if is_strict => Ok(body),
        _ => Err(Rejection::new(Code::InvalidRequest, "The body is not a JSON object.").into()),
    }
}
