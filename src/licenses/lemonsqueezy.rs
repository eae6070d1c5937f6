//! Lemon Squeezy's License API: <https://docs.lemonsqueezy.com/api/license-api>.
//!
//! `valid: true` only means that the key exists somewhere on Lemon Squeezy, so store, product,
//! variant and test mode are always compared. The HTTP status of expired and disabled keys is not
//! documented: an answer with a boolean `valid` decides, whatever its status; one without says
//! nothing about the key. The answer holds the buyer's name and address; neither is read.

use gatekeeper_filters::kernel::{Code, UnixMs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    shop_client::{ShopClient, ShopResponse},
    shop_license::{self, LicenseVerdict, Shop, ShopError, ShopReply},
};
use crate::{
    config::settings::{BaseUrl, LemonSqueezy},
    vault::KeyedHash,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Valid, with no activation so far.
    Inactive,
    Active,
    Expired,
    Disabled,
    /// Not valid, and the shop does not say why.
    WebhookError,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShopLicense {
    pub status: Status,
    pub store: u64,
    pub product: u64,
    pub variant: u64,
    pub test_mode: bool,
    /// `None`: for ever, or as long as the subscription.
    pub expires: Option<UnixMs>,
    /// The order's id, hashed.
    pub order: Option<String>,
    /// Most activations, `None` for no limit, and those there are.
    pub activation_limit: Option<u64>,
    pub activations: u64,
}

/// What a device call brought beside facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReply {
    pub reply: ShopReply,
    /// The new instance's id, or whether the one asked about belongs to the licence.
    pub device: Instance,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    Is(String),
    /// The licence is known, the device is not.
    IsNot,
    /// As many devices as the licence allows are active.
    Full,
    /// It gave its place back.
    Released,
    Unsaid,
}

const VALIDATE: &str = "/v1/licenses/validate";
const ACTIVATE: &str = "/v1/licenses/activate";
const DEACTIVATE: &str = "/v1/licenses/deactivate";

pub async fn validate(
    client: &ShopClient,
    base: &BaseUrl,
    key: &str,
    hasher: &KeyedHash,
) -> ShopReply {
    match client.post(base, VALIDATE, &[("license_key", key)]).await {
        Ok(answer) => read(&answer, "valid", hasher),
        Err(trouble) => ShopReply::Unknown(trouble),
    }
}

/// What is asked about a device.
#[derive(Debug, Clone, Copy)]
pub enum InstanceCall<'a> {
    /// Whether the instance of this id belongs to the licence.
    Validate(&'a str),
    /// A place for a device of this name.
    Activate(&'a str),
    /// The place of the instance of this id is free again.
    Deactivate(&'a str),
}

/// One call about a licence and a device of it.
pub async fn device(
    client: &ShopClient,
    base: &BaseUrl,
    (key, call): (&str, InstanceCall<'_>),
    hasher: &KeyedHash,
) -> InstanceReply {
    let (path, flag, member, value) = match call {
        InstanceCall::Validate(id) => (VALIDATE, "valid", "instance_id", id),
        InstanceCall::Activate(name) => (ACTIVATE, "activated", "instance_name", name),
        InstanceCall::Deactivate(id) => (DEACTIVATE, "deactivated", "instance_id", id),
    };
    match client.post(base, path, &[("license_key", key), (member, value)]).await {
        Ok(answer) => read_device(&answer, flag, hasher),
        Err(trouble) => {
            InstanceReply { reply: ShopReply::Unknown(trouble), device: Instance::Unsaid }
        }
    }
}

/// An answer to facts. `flag` is the member that says yes or no: `valid`, `activated`,
/// `deactivated`.
pub fn read(answer: &ShopResponse, flag: &str, hasher: &KeyedHash) -> ShopReply {
    if answer.status == 429 {
        return ShopReply::Unknown(ShopError::Limited { retry_after: answer.retry_after });
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let (Some(yes), 200 | 400 | 404) = (body[flag].as_bool(), answer.status) else {
        let status = answer.status;
        let unclear =
            if status == 200 { ShopError::unreadable() } else { ShopError::status(status) };
        return ShopReply::Unknown(unclear);
    };
    match purchase(&body, yes, hasher) {
        Some(facts) => ShopReply::ShopLicense(shop_license::ShopLicense::LemonSqueezy(facts)),
        None if yes => ShopReply::Unknown(ShopError::unreadable()),
        None if body["license_key"].is_object() => ShopReply::Unknown(ShopError::unreadable()),
        None => ShopReply::NotFound,
    }
}

fn read_device(answer: &ShopResponse, flag: &str, hasher: &KeyedHash) -> InstanceReply {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let error = body["error"].as_str().unwrap_or_default();
    let device = match (body[flag].as_bool(), body["instance"]["id"].as_str()) {
        (Some(true), Some(id)) => Instance::Is(id.to_owned()),
        (Some(false), _) if error.contains("instance_id") => Instance::IsNot,
        (Some(false), _) if error.contains("activation limit") => Instance::Full,
        (Some(true), None) if flag == "deactivated" => Instance::Released,
        (Some(true), None) => Instance::IsNot,
        _ => Instance::Unsaid,
    };
    let reply = match (read(answer, flag, hasher), &device) {
        // The no is about the device; of the licence nothing is said.
        (ShopReply::NotFound, Instance::IsNot) => ShopReply::Unknown(ShopError::unreadable()),
        // A no about the device must not read as one about the licence.
        (ShopReply::ShopLicense(shop_license::ShopLicense::LemonSqueezy(mut facts)), _)
            if facts.status == Status::WebhookError && device != Instance::Unsaid =>
        {
            facts.status = Status::Active;
            ShopReply::ShopLicense(shop_license::ShopLicense::LemonSqueezy(facts))
        }
        (reply, _) => reply,
    };
    InstanceReply { reply, device }
}

fn purchase(body: &Value, yes: bool, hasher: &KeyedHash) -> Option<ShopLicense> {
    let (license, meta) = (&body["license_key"], &body["meta"]);
    let status = match license["status"].as_str()? {
        "expired" => Status::Expired,
        "disabled" => Status::Disabled,
        // Documented as 0 or 1; answers to `validate` mostly lack it.
        _ if shop_license::optional_flag_or_number(&license["disabled"])? => Status::Disabled,
        _ if !yes => Status::WebhookError,
        "inactive" => Status::Inactive,
        "active" => Status::Active,
        _ => return None,
    };
    let expires = match &license["expires_at"] {
        Value::Null => None,
        at => Some(shop_license::moment(at.as_str()?)?),
    };
    Some(ShopLicense {
        status,
        store: number(&meta["store_id"])?,
        product: number(&meta["product_id"])?,
        variant: number(&meta["variant_id"])?,
        test_mode: shop_license::optional_flag(&license["test_mode"])?,
        expires,
        order: number(&meta["order_id"]).map(|id| hash_order(id, hasher)),
        activation_limit: number(&license["activation_limit"]),
        activations: number(&license["activation_usage"]).unwrap_or(0),
    })
}

pub fn hash_order(id: u64, hasher: &KeyedHash) -> String {
    hasher.order(Shop::LemonSqueezy.name(), &id.to_string())
}

pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// What the facts mean for one store of the configuration, at `now`.
pub fn judge(facts: &ShopLicense, source: &LemonSqueezy, now: UnixMs) -> LicenseVerdict {
    let product = source.products.iter().find(|(id, _)| *id == facts.product);
    let plan = product.and_then(|(_, variants)| variants.plan(|id| *id == facts.variant));
    let (Some(plan), true) = (plan, facts.store == source.store_id) else {
        return LicenseVerdict::Invalid(Code::LicenseWrongProduct);
    };
    if facts.test_mode && !source.test_mode {
        return LicenseVerdict::Invalid(Code::LicenseInvalid);
    }
    match facts.ended(now) {
        Some(code) => LicenseVerdict::Invalid(code),
        None => LicenseVerdict::Valid { plan: plan.clone(), until: facts.expires },
    }
}

impl ShopLicense {
    /// Why it is no longer good at `now`.
    pub fn ended(&self, now: UnixMs) -> Option<Code> {
        match self.status {
            Status::Disabled => Some(Code::LicenseDisabled),
            Status::Expired => Some(Code::LicenseExpired),
            Status::WebhookError => Some(Code::LicenseInvalid),
            Status::Inactive | Status::Active => {
                self.expires.is_some_and(|at| at <= now).then_some(Code::LicenseExpired)
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
