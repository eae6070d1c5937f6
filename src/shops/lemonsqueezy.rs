//! Lemon Squeezy's License API: <https://docs.lemonsqueezy.com/api/license-api>.
//!
//! `valid: true` only means that the key exists somewhere on Lemon Squeezy, so store, product, variant and
//! test mode are always compared. The HTTP status of expired and disabled keys is not documented: an answer
//! with a boolean `valid` counts, whatever its status; one without says nothing about the key. The answer
//! contains the buyer's name and address; neither is read.

use gatekeeper_filters::kernel::UnixMs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Asked, Instance, InstanceCall, InstanceReply, Instances, Role, Scheme, Shop, ShopConstants,
    ShopError, ShopLicense, ShopReply, ShopRequest, ShopResponse, ShopSource, Status, Unreadable,
    Webhook, WebhookEvent, WebhookSubject, YamlField, is_uuid,
    license::{moment, optional_flag, optional_flag_or_number},
    named,
};
use crate::vault::KeyedHash;

pub struct LemonSqueezy;

const VALIDATE: &str = "/v1/licenses/validate";
const ACTIVATE: &str = "/v1/licenses/activate";
const DEACTIVATE: &str = "/v1/licenses/deactivate";

const FIELDS: &[YamlField] = &[
    YamlField::new(
        "store_id",
        Role::SellerNumber,
        "Settings > Stores. Keys of every other store are refused.",
    )
    .required(),
    YamlField::new(
        "products",
        Role::NumberedVariants,
        "Product id to variant id to plan; the variant `*` is any other.",
    )
    .required(),
    YamlField::new(
        "test_mode",
        Role::TestMode,
        "Accepts test-mode licences, too. Anyone can create one.",
    ),
];

static CONSTANTS: ShopConstants = ShopConstants {
    title: "Lemon Squeezy",
    doc: "A Lemon Squeezy store.",
    base: Some("https://api.lemonsqueezy.com"),
    fields: FIELDS,
    shape: "a UUID",
    ..named!("lemonsqueezy")
};

impl Shop for LemonSqueezy {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    fn has_shape(&self, key: &str) -> bool {
        is_uuid(key)
    }

    fn request(&self, _: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        Some(ShopRequest::form(VALIDATE, vec![("license_key", asked.key.to_owned())]))
    }

    fn read(
        &self,
        _: &ShopSource,
        _: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply {
        read(response, "valid", hash)
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }

    fn store(&self, license: &ShopLicense) -> Option<Value> {
        serde_json::to_value(Stored::of(license)?).ok()
    }

    fn restore(&self, stored: Value) -> Option<ShopLicense> {
        Some(serde_json::from_value::<Stored>(stored).ok()?.license())
    }
}

/// The form in which licences of this shop have always been stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    status: Status,
    store: u64,
    product: u64,
    variant: u64,
    test_mode: bool,
    expires: Option<UnixMs>,
    order: Option<String>,
    activation_limit: Option<u64>,
    activations: u64,
}

impl Stored {
    fn of(license: &ShopLicense) -> Option<Self> {
        Some(Self {
            status: license.status,
            store: license.seller.parse().ok()?,
            product: license.product.as_deref()?.parse().ok()?,
            variant: license.variant.as_deref()?.parse().ok()?,
            test_mode: license.test,
            expires: license.until,
            order: license.order.clone(),
            activation_limit: license.activation_limit,
            activations: license.activations.unwrap_or_default(),
        })
    }

    fn license(self) -> ShopLicense {
        ShopLicense {
            seller: self.store.to_string(),
            product: Some(self.product.to_string()),
            variant: Some(self.variant.to_string()),
            test: self.test_mode,
            until: self.expires,
            order: self.order,
            activation_limit: self.activation_limit,
            activations: Some(self.activations),
            ..ShopLicense::new(&LemonSqueezy, self.status)
        }
    }
}

/// Reads an answer. `flag` is the boolean member: `valid`, `activated`, `deactivated`.
fn read(response: &ShopResponse, flag: &str, hash: &KeyedHash) -> ShopReply {
    if response.status == 429 {
        return ShopReply::of_status(response);
    }
    let body = response.json();
    let (Some(yes), 200 | 400 | 404) = (body[flag].as_bool(), response.status) else {
        let status = response.status;
        let unclear =
            if status == 200 { ShopError::unreadable() } else { ShopError::status(status) };
        return ShopReply::Unknown(unclear);
    };
    match purchase(&body, yes, hash) {
        Some(license) => license.into(),
        None if yes || body["license_key"].is_object() => ShopReply::unreadable(),
        None => ShopReply::NotFound,
    }
}

fn purchase(body: &Value, yes: bool, hash: &KeyedHash) -> Option<ShopLicense> {
    let (license, meta) = (&body["license_key"], &body["meta"]);
    let status = match license["status"].as_str()? {
        "expired" => Status::Expired,
        "disabled" => Status::Disabled,
        // Documented as 0 or 1; answers to `validate` mostly lack it.
        _ if optional_flag_or_number(&license["disabled"])? => Status::Disabled,
        _ if !yes => Status::Refused,
        "inactive" => Status::Inactive,
        "active" => Status::Active,
        _ => return None,
    };
    let expires = match &license["expires_at"] {
        Value::Null => None,
        at => Some(moment(at.as_str()?)?),
    };
    let stored = Stored {
        status,
        store: number(&meta["store_id"])?,
        product: number(&meta["product_id"])?,
        variant: number(&meta["variant_id"])?,
        test_mode: optional_flag(&license["test_mode"])?,
        expires,
        order: number(&meta["order_id"]).map(|id| hash_order(id, hash)),
        activation_limit: number(&license["activation_limit"]),
        activations: number(&license["activation_usage"]).unwrap_or(0),
    };
    Some(stored.license())
}

fn hash_order(id: u64, hash: &KeyedHash) -> String {
    hash.order(LemonSqueezy.name(), &id.to_string())
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

impl Instances for LemonSqueezy {
    fn request(
        &self,
        _: &ShopSource,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
    ) -> Option<ShopRequest> {
        let (path, member, value) = match call {
            InstanceCall::Validate(id) => (VALIDATE, "instance_id", id),
            InstanceCall::Activate(name) => (ACTIVATE, "instance_name", name),
            InstanceCall::Deactivate(id) => (DEACTIVATE, "instance_id", id),
        };
        let form = vec![("license_key", asked.key.to_owned()), (member, value.to_owned())];
        Some(ShopRequest::form(path, form))
    }

    fn read(
        &self,
        _: &ShopSource,
        _: &Asked<'_>,
        call: InstanceCall<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> InstanceReply {
        let flag = match call {
            InstanceCall::Validate(_) => "valid",
            InstanceCall::Activate(_) => "activated",
            InstanceCall::Deactivate(_) => "deactivated",
        };
        read_instance(response, flag, hash)
    }
}

fn read_instance(response: &ShopResponse, flag: &str, hash: &KeyedHash) -> InstanceReply {
    let body = response.json();
    let error = body["error"].as_str().unwrap_or_default();
    let instance = match (body[flag].as_bool(), body["instance"]["id"].as_str()) {
        (Some(true), Some(id)) => Instance::Is(id.to_owned()),
        (Some(false), _) if error.contains("instance_id") => Instance::IsNot,
        (Some(false), _) if error.contains("activation limit") => Instance::Full,
        (Some(true), None) if flag == "deactivated" => Instance::Released,
        (Some(true), None) => Instance::IsNot,
        _ => Instance::Unsaid,
    };
    let reply = match (read(response, flag, hash), &instance) {
        // The refusal concerns the device, not the licence.
        (ShopReply::NotFound, Instance::IsNot) => ShopReply::unreadable(),
        // A refusal of the device must not read as one of the licence.
        (ShopReply::License(mut license), _)
            if license.status == Status::Refused && instance != Instance::Unsaid =>
        {
            license.status = Status::Active;
            ShopReply::License(license)
        }
        (reply, _) => reply,
    };
    InstanceReply { reply, instance }
}

/// Signed since <https://docs.lemonsqueezy.com/help/webhooks/signing-requests>; the scheme has no time stamp.
impl Webhook for LemonSqueezy {
    fn scheme(&self) -> Scheme {
        Scheme::Hex("x-signature")
    }

    /// `None` for what is not about this store, or about its test mode.
    fn read(
        &self,
        body: &[u8],
        source: &ShopSource,
        hash: &KeyedHash,
    ) -> Result<Option<WebhookEvent>, Unreadable> {
        let event: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
        Ok(event_of(&event, source, hash))
    }
}

fn event_of(event: &Value, source: &ShopSource, hash: &KeyedHash) -> Option<WebhookEvent> {
    let (meta, data) = (&event["meta"], &event["data"]);
    let attributes = &data["attributes"];
    // With another type than the documented one, it does not count as a sale.
    let test = |value: &Value| !matches!(value["test_mode"], Value::Null | Value::Bool(false));
    let store = number(&attributes["store_id"]).map(|store| store.to_string());
    if store.as_deref() != source.seller.as_deref()
        || ((test(meta) || test(attributes)) && !source.test_mode)
    {
        return None;
    }
    let order = |id: &Value| number(id).map(|id| WebhookSubject::Reference(hash_order(id, hash)));
    let subject = match data["type"].as_str().unwrap_or_default() {
        "license-keys" => match attributes["key"].as_str() {
            Some(key) => Some(WebhookSubject::License(hash.id(key))),
            None => order(&attributes["order_id"]),
        },
        "orders" => order(&data["id"]),
        _ => order(&attributes["order_id"]),
    };
    // A part of the money given back does not end the licence.
    let in_part = attributes["status"] == "partial_refund" || attributes["refunded"] == false;
    let refund = meta["event_name"] == "order_refunded" && !in_part;
    let spelling = attributes["key"].as_str().map(|key| hash.spelling(key));
    Some(WebhookEvent { subjects: subject.into_iter().collect(), spelling, refund })
}

#[cfg(test)]
mod tests;
