//! Dodo Payments: `src/resources/{licenses,license-keys,license-key-instances}.ts` of
//! <https://github.com/dodopayments/dodopayments-typescript>.
//!
//! `POST /licenses/validate` answers `{"valid": bool}` and nothing else, so the key of *any* seller is valid
//! there; only an activation names product and business. With our API key one activation is made on the first
//! question, and `GET /license_keys/{id}` from then on; without it, devices must be activated by the app.

use serde_json::{Value, json};

use super::{
    Asked, Instance, InstanceCall, InstanceReply, Instances, Role, Scheme, Shop, ShopConstants,
    ShopError, ShopLicense, ShopReply, ShopRequest, ShopResponse, ShopSource, Status, Unreadable,
    Webhook, WebhookEvent, WebhookSubject, YamlField, is_plain,
    license::{optional_count, optional_moment, word},
    named,
    wire::segment,
};
use crate::vault::KeyedHash;

pub struct Dodo;

/// The name of the activation that the gateway makes for itself.
const OWN_INSTANCE: &str = "gatekeeper";

const FIELDS: &[YamlField] = &[
    YamlField::new(
        "business_id",
        Role::Seller,
        "The business: Business > Settings. Without it the keys of all sellers would fit.",
    )
    .required(),
    YamlField::new(
        "api_key",
        Role::ApiKey,
        "An API key: Developer > API keys. `env:NAME` or `file:PATH`. Without it plans need \
         `devices: required`.",
    ),
    YamlField::new("products", Role::Products, "Product id (`pdt_...`) to plan.").required(),
    YamlField::new(
        "test_mode",
        Role::TestMode,
        "Asks Dodo's test mode, whose licences cost nothing.",
    ),
];

static CONSTANTS: ShopConstants = ShopConstants {
    title: "Dodo Payments",
    doc: "A Dodo Payments business.",
    base: Some("https://live.dodopayments.com"),
    sandbox: Some("https://test.dodopayments.com"),
    version: "",
    fields: FIELDS,
    shape: "any key of 8 characters or more",
    names_licenses: true,
    checks_by_id: true,
    ..named!("dodo")
};

impl Shop for Dodo {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    fn has_shape(&self, key: &str) -> bool {
        is_plain(key)
    }

    fn request(&self, source: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        let token = source.api_key.as_ref();
        if let (Some(id), Some(_)) = (asked.handle(), token) {
            return Some(ShopRequest::get(format!("/license_keys/{}", segment(id))).bearer(token));
        }
        if token.is_some() && is_new(asked) {
            return Instances::request(self, source, asked, InstanceCall::Activate(OWN_INSTANCE));
        }
        // About the key alone: a device that gave its place back must not end the licence.
        Some(ShopRequest::json("/licenses/validate", json!({ "license_key": asked.key })))
    }

    fn read(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply {
        let body = response.json();
        let has_token = source.api_key.is_some();
        if asked.handle().is_some() && has_token {
            return record(response, &body, hash);
        }
        if has_token && is_new(asked) {
            return activated(source, response, &body, hash).reply;
        }
        match (response.status, body["valid"].as_bool(), asked.known) {
            (200, Some(false), None) => ShopReply::NotFound,
            // A valid key, without the information whose it is.
            (200, Some(true), None) => ShopReply::NeedsDevice,
            (200, Some(valid), Some(known)) => {
                let status = if valid { Status::Active } else { Status::Disabled };
                ShopLicense { status, ..known.clone() }.into()
            }
            _ => other(response),
        }
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }
}

/// Nothing is known of the licence, or not whose it is.
fn is_new(asked: &Asked<'_>) -> bool {
    asked.known.is_none_or(|known| known.product.is_none())
}

fn other(response: &ShopResponse) -> ShopReply {
    match response.status {
        401 | 403 => ShopReply::Unknown(ShopError::credential(response.status, "dodo.api_key")),
        _ => ShopReply::of_status(response),
    }
}

fn reference(kind: &str, value: &Value, hash: &KeyedHash) -> Option<String> {
    Some(hash.order(Dodo.name(), &format!("{kind}:{}", value.as_str()?)))
}

/// `LicenseKey`, as `GET /license_keys/{id}` answers.
fn record(response: &ShopResponse, body: &Value, hash: &KeyedHash) -> ShopReply {
    match response.status {
        200 => license(body, hash).map_or_else(ShopReply::unreadable, ShopReply::from),
        404 if body["code"].is_string() || body["message"].is_string() => ShopReply::NotFound,
        _ => other(response),
    }
}

fn license(body: &Value, hash: &KeyedHash) -> Option<ShopLicense> {
    let status = match body["status"].as_str()? {
        "active" => Status::Active,
        "expired" => Status::Expired,
        "disabled" => Status::Disabled,
        _ => return None,
    };
    let named = [
        ("license", &body["id"]),
        ("customer", &body["customer_id"]),
        ("payment", &body["payment_id"]),
        ("subscription", &body["subscription_id"]),
    ];
    Some(ShopLicense {
        seller: word(&body["business_id"])?,
        product: Some(word(&body["product_id"])?),
        variant: Some(String::new()),
        until: optional_moment(&body["expires_at"])?,
        references: named.iter().filter_map(|(kind, id)| reference(kind, id, hash)).collect(),
        handle: Some(word(&body["id"])?),
        activation_limit: optional_count(&body["activations_limit"])?,
        activations: Some(optional_count(&body["instances_count"])?.unwrap_or_default()),
        ..ShopLicense::new(&Dodo, status)
    })
}

/// `LicenseActivateResponse`: the only public answer that identifies the buyer's product.
fn activated(
    source: &ShopSource,
    response: &ShopResponse,
    body: &Value,
    hash: &KeyedHash,
) -> InstanceReply {
    let unsaid = |reply| InstanceReply { reply, instance: Instance::Unsaid };
    match response.status {
        200 | 201 => {
            let customer = &body["customer"]["customer_id"];
            let named = [("license", &body["license_key_id"]), ("customer", customer)];
            let read = || {
                let license = ShopLicense {
                    seller: word(&body["business_id"])?,
                    product: Some(word(&body["product"]["product_id"])?),
                    variant: Some(String::new()),
                    references: named
                        .iter()
                        .filter_map(|(kind, id)| reference(kind, id, hash))
                        .collect(),
                    handle: Some(word(&body["license_key_id"])?),
                    activations: Some(1),
                    ..ShopLicense::new(&Dodo, Status::Active)
                };
                Some((license, word(&body["id"])?))
            };
            match read() {
                Some((license, id)) => {
                    InstanceReply { reply: license.into(), instance: Instance::Is(id) }
                }
                None => unsaid(ShopReply::unreadable()),
            }
        }
        404 if body["message"].is_string() => unsaid(ShopReply::NotFound),
        422 if body["message"].is_string() => {
            InstanceReply { reply: ShopReply::NeedsDevice, instance: Instance::Full }
        }
        // Documented for a key that is disabled or has expired; whose it is stays unsaid.
        403 if body["code"].is_string() && body["message"].is_string() => {
            let ended = ShopLicense {
                seller: source.seller().to_owned(),
                ..ShopLicense::new(&Dodo, Status::Disabled)
            };
            unsaid(ended.into())
        }
        _ => unsaid(other(response)),
    }
}

impl Instances for Dodo {
    fn request(
        &self,
        _: &ShopSource,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
    ) -> Option<ShopRequest> {
        let (path, member, value) = match call {
            InstanceCall::Validate(id) => ("/licenses/validate", "license_key_instance_id", id),
            InstanceCall::Activate(name) => ("/licenses/activate", "name", name),
            InstanceCall::Deactivate(id) => ("/licenses/deactivate", "license_key_instance_id", id),
        };
        let mut body = json!({ "license_key": asked.key });
        body[member] = value.into();
        Some(ShopRequest::json(path, body))
    }

    fn read(
        &self,
        source: &ShopSource,
        _: &Asked<'_>,
        call: InstanceCall<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> InstanceReply {
        let body = response.json();
        let (status, is_valid) = (response.status, body["valid"].as_bool());
        let instance = match (call, status, is_valid) {
            (InstanceCall::Activate(_), ..) => return activated(source, response, &body, hash),
            (InstanceCall::Validate(id), 200, Some(true)) => Instance::Is(id.to_owned()),
            (InstanceCall::Validate(_), 200, Some(false)) => Instance::IsNot,
            (InstanceCall::Deactivate(_), 200..=204, _) => Instance::Released,
            (InstanceCall::Deactivate(_), 404, _) if body["message"].is_string() => Instance::IsNot,
            _ => return InstanceReply { reply: other(response), instance: Instance::Unsaid },
        };
        InstanceReply { reply: ShopReply::unreadable(), instance }
    }

    fn comes_first(&self, source: &ShopSource) -> bool {
        source.api_key.is_none()
    }
}

impl Webhook for Dodo {
    fn scheme(&self) -> Scheme {
        Scheme::Standard
    }

    fn read(
        &self,
        body: &[u8],
        source: &ShopSource,
        hash: &KeyedHash,
    ) -> Result<Option<WebhookEvent>, Unreadable> {
        let event: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
        if event["business_id"].as_str().is_some_and(|id| id != source.seller()) {
            return Ok(None);
        }
        let data = &event["data"];
        let key = data["key"].as_str().or_else(|| data["license_key"]["key"].as_str());
        let license = match event["type"].as_str() {
            Some(kind) if kind.starts_with("license_key.") => &data["id"],
            _ => &data["license_key_id"],
        };
        let named = [
            ("license", license),
            ("customer", &data["customer_id"]),
            ("customer", &data["customer"]["customer_id"]),
            ("payment", &data["payment_id"]),
            ("subscription", &data["subscription_id"]),
        ];
        let named = named.iter().filter_map(|(kind, id)| reference(kind, id, hash));
        let subjects = named.map(WebhookSubject::Reference);
        let by_key = key.map(|key| WebhookSubject::License(hash.id(key)));
        Ok(Some(WebhookEvent {
            subjects: subjects.chain(by_key).collect(),
            spelling: key.map(|key| hash.spelling(key)),
            refund: false,
        }))
    }
}
