//! Creem: `packages/docs/api-reference/openapi.json`, `code/webhooks.mdx` and `error-codes.mdx` of
//! <https://github.com/armitage-labs/creem-docs>.
//!
//! A licence is known by its key together with an activated instance: a key that was never activated can't be
//! asked about, so its plan must have `devices: required`. A 403 is about *our* API key. No webhook names a
//! licence or key; an event names the customer, whose licences are asked about again.

use serde_json::{Value, json};

use super::{
    Asked, Instance, InstanceCall, InstanceReply, Instances, Role, Scheme, Shop, ShopConstants,
    ShopError, ShopLicense, ShopReply, ShopRequest, ShopResponse, ShopSource, Status, Unreadable,
    Webhook, WebhookEvent, WebhookSubject, YamlField, is_plain,
    license::{optional_count, optional_moment, word},
    named,
};
use crate::vault::KeyedHash;

pub struct Creem;

const FIELDS: &[YamlField] = &[
    YamlField::new(
        "api_key",
        Role::ApiKey,
        "The API key of the store: Developers > API keys. `env:NAME` or `file:PATH`.",
    )
    .required(),
    YamlField::new(
        "products",
        Role::Products,
        "Product id (`prod_...`) to plan; such plans need `devices: required`.",
    )
    .required(),
    YamlField::new(
        "test_mode",
        Role::TestMode,
        "Asks Creem's test API and takes licences of test mode.",
    ),
];

static CONSTANTS: ShopConstants = ShopConstants {
    title: "Creem",
    doc: "A Creem store.",
    base: Some("https://api.creem.io"),
    sandbox: Some("https://test-api.creem.io"),
    fields: FIELDS,
    shape: "any key of 8 characters or more",
    names_licenses: true,
    ..named!("creem")
};

impl Shop for Creem {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    fn has_shape(&self, key: &str) -> bool {
        is_plain(key)
    }

    fn request(&self, source: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        Instances::request(self, source, asked, InstanceCall::Validate(asked.instance?))
    }

    fn read(
        &self,
        _: &ShopSource,
        asked: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply {
        match read(response, &response.json(), hash) {
            // Of a licence that is known, the instance may be what does not exist: it was removed at the shop.
            ShopReply::NotFound if asked.known.is_some() => ShopReply::NeedsDevice,
            reply => reply,
        }
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }
}

fn read(response: &ShopResponse, body: &Value, hash: &KeyedHash) -> ShopReply {
    match response.status {
        200 | 201 => license(body, hash).map_or_else(ShopReply::unreadable, ShopReply::from),
        // `error-codes.mdx`: 404 for what does not exist, whatever `error` contains; an error page of a
        // proxy has no `trace_id`.
        404 if body["trace_id"].is_string() => ShopReply::NotFound,
        401 | 403 => ShopReply::Unknown(ShopError::credential(response.status, "creem.api_key")),
        _ => ShopReply::of_status(response),
    }
}

/// `LicenseEntity`.
fn license(body: &Value, hash: &KeyedHash) -> Option<ShopLicense> {
    let status = match body["status"].as_str()? {
        "active" => Status::Active,
        "inactive" => Status::Inactive,
        "expired" => Status::Expired,
        "disabled" => Status::Disabled,
        _ => return None,
    };
    let customer = body["customer_id"].as_str().or_else(|| body["customer"]["id"].as_str());
    let id = |id: &str| hash.order(Creem.name(), &format!("license:{id}"));
    let own = body["id"].as_str().map(id);
    let named = references(customer, body["product_id"].as_str(), hash);
    Some(ShopLicense {
        product: Some(word(&body["product_id"])?),
        variant: Some(String::new()),
        test: word(&body["mode"])? != "prod",
        until: optional_moment(&body["expires_at"])?,
        // Without a customer, an event reaches a licence by its product.
        references: own.into_iter().chain(named).collect(),
        activation_limit: optional_count(&body["activation_limit"])?,
        activations: Some(optional_count(&body["activation"])?.unwrap_or_default()),
        ..ShopLicense::new(&Creem, status)
    })
}

fn references(customer: Option<&str>, product: Option<&str>, hash: &KeyedHash) -> Vec<String> {
    let named = [("customer", customer), ("product", product.filter(|_| customer.is_none()))];
    let hashed = named
        .iter()
        .filter_map(|(kind, id)| Some(hash.order(Creem.name(), &format!("{kind}:{}", (*id)?))));
    hashed.collect()
}

/// The instance of an answer: the specification shows an object, the guide a list.
fn instance_of<'a>(body: &'a Value, wanted: Option<&str>) -> Option<&'a Value> {
    let instances = match &body["instance"] {
        Value::Array(all) => all.as_slice(),
        one @ Value::Object(_) => std::slice::from_ref(one),
        _ => return None,
    };
    match wanted {
        Some(id) => instances.iter().find(|instance| instance["id"] == id),
        None => instances.last(),
    }
}

impl Instances for Creem {
    fn request(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
    ) -> Option<ShopRequest> {
        let (path, member, value) = match call {
            InstanceCall::Validate(id) => ("/v1/licenses/validate", "instance_id", id),
            InstanceCall::Activate(name) => ("/v1/licenses/activate", "instance_name", name),
            InstanceCall::Deactivate(id) => ("/v1/licenses/deactivate", "instance_id", id),
        };
        let mut body = json!({ "key": asked.key });
        body[member] = value.into();
        let key = source.api_key.as_ref().map(secrecy::ExposeSecret::expose_secret);
        Some(ShopRequest::json(path, body).header("x-api-key", key.unwrap_or_default()))
    }

    fn read(
        &self,
        _: &ShopSource,
        _: &Asked<'_>,
        call: InstanceCall<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> InstanceReply {
        let body = response.json();
        let reply = read(response, &body, hash);
        let is_active = |instance: &&Value| instance["status"] == "active";
        let instance = match (call, &reply) {
            (InstanceCall::Activate(_), ShopReply::License(_)) => {
                let id = instance_of(&body, None).filter(is_active);
                id.and_then(|id| word(&id["id"])).map_or(Instance::Unsaid, Instance::Is)
            }
            (InstanceCall::Validate(id), ShopReply::License(_)) => {
                match instance_of(&body, Some(id)) {
                    Some(found) if is_active(&found) => Instance::Is(id.to_owned()),
                    Some(_) => Instance::IsNot,
                    None if body["instance"].is_null() => Instance::IsNot,
                    None => Instance::Unsaid,
                }
            }
            (InstanceCall::Deactivate(_), ShopReply::License(_)) => Instance::Released,
            // Of a licence that is known, the instance is what does not exist.
            (InstanceCall::Validate(_) | InstanceCall::Deactivate(_), ShopReply::NotFound) => {
                Instance::IsNot
            }
            (InstanceCall::Activate(_), _) if is_full(response.status, &body) => Instance::Full,
            _ => Instance::Unsaid,
        };
        InstanceReply { reply, instance }
    }

    fn comes_first(&self, _: &ShopSource) -> bool {
        true
    }
}

/// 403 concerns the API key everywhere else; only this message is about the device limit.
fn is_full(status: u16, body: &Value) -> bool {
    let says_limit = |text: &Value| text.as_str().is_some_and(|text| text.contains("limit"));
    let message = match &body["message"] {
        Value::Array(all) => all.iter().any(says_limit),
        one => says_limit(one),
    };
    (400..=409).contains(&status) && message
}

/// `code/webhooks.mdx`: hex HMAC-SHA256 of the body, without a time stamp.
impl Webhook for Creem {
    fn scheme(&self) -> Scheme {
        Scheme::Hex("creem-signature")
    }

    fn read(
        &self,
        body: &[u8],
        _: &ShopSource,
        hash: &KeyedHash,
    ) -> Result<Option<WebhookEvent>, Unreadable> {
        let event: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
        let object = &event["object"];
        // Ids stand there as text or as the whole object.
        let id = |value: &Value| word(value).or_else(|| word(&value["id"]));
        let customer = id(&object["customer"]).or_else(|| id(&object["subscription"]["customer"]));
        let product = id(&object["product"]).or_else(|| id(&object["subscription"]["product"]));
        let by_customer = customer.map(|id| format!("customer:{id}"));
        let by_product = product.map(|id| format!("product:{id}"));
        let subjects = by_customer.into_iter().chain(by_product);
        let subjects =
            subjects.map(|id| WebhookSubject::Reference(hash.order(Creem.name(), &id))).collect();
        Ok(Some(WebhookEvent { subjects, ..WebhookEvent::default() }))
    }
}
