//! Polar: `server/polar/license_key/{schemas,service}.py` and `customer_portal/endpoints/license_keys.py` of
//! <https://github.com/polarsource/polar>.
//!
//! Every refusal of `validate` is a 404 whose `detail` alone gives the cause, so once a licence is known
//! and there is a token, `GET /v1/license-keys/{id}` is called instead, which has a status. A customer may
//! have the key replaced: the record keeps its id and the old key must stop. The answer contains the
//! customer's address; it is not read.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Asked, Instance, InstanceCall, InstanceReply, Instances, Role, Scheme, Shop, ShopConstants,
    ShopError, ShopLicense, ShopReply, ShopRequest, ShopResponse, ShopSource, Status, Unreadable,
    Webhook, WebhookEvent, WebhookSubject, YamlField, is_uuid,
    license::{optional_count, optional_moment, word},
    named,
    wire::segment,
};
use crate::vault::KeyedHash;

pub struct Polar;

const PUBLIC: &str = "/v1/customer-portal/license-keys";
const SERVER: &str = "/v1/license-keys";
/// `rate_limit.py`: three calls a second and address on the public paths, then a minute's block.
const PUBLIC_BURST: (usize, u64) = (3, 1_100);
const BLOCKED: Duration = Duration::from_secs(60);

const FIELDS: &[YamlField] = &[
    YamlField::new(
        "organization_id",
        Role::Seller,
        "The organisation's UUID: Settings > General. Keys of other organisations are refused.",
    )
    .required(),
    YamlField::new(
        "token",
        Role::ApiKey,
        "An organisation access token with `license_keys:write`, `env:NAME` or `file:PATH`. Without it the \
         public calls are made, three a second.",
    ),
    YamlField::new("benefits", Role::Products, "Benefit id (the licence keys benefit) to plan.")
        .required(),
    YamlField::new("sandbox", Role::TestMode, "Asks Polar's sandbox, whose licences cost nothing."),
];

static CONSTANTS: ShopConstants = ShopConstants {
    title: "Polar",
    doc: "A Polar organisation.",
    base: Some("https://api.polar.sh"),
    sandbox: Some("https://sandbox-api.polar.sh"),
    fields: FIELDS,
    shape: "a UUID, with or without a prefix",
    names_licenses: true,
    ..named!("polar")
};

impl Shop for Polar {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    /// A UUID, by itself or after the benefit's prefix.
    fn has_shape(&self, key: &str) -> bool {
        let Some(start) = key.len().checked_sub(36) else { return false };
        let (Some(prefix), Some(uuid)) = (key.get(..start), key.get(start..)) else {
            return false;
        };
        let is_prefix = prefix.is_empty() || (prefix.ends_with('-') && prefix.len() > 1);
        is_uuid(uuid)
            && is_prefix
            && prefix.len() <= 64
            && prefix.bytes().all(|b| b.is_ascii_graphic())
    }

    fn request(&self, source: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        let token = source.api_key.as_ref();
        if let (Some(id), Some(_)) = (asked.handle(), token) {
            return Some(ShopRequest::get(format!("{SERVER}/{}", segment(id))).bearer(token));
        }
        let path = if token.is_some() { SERVER } else { PUBLIC };
        let body = json!({ "key": asked.key, "organization_id": source.seller() });
        Some(ShopRequest::json(format!("{path}/validate"), body).bearer(token))
    }

    fn read(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply {
        let body = response.json();
        match response.status {
            200 => match license(&body, hash) {
                Some((license, key)) => replaced(license, key.as_deref(), asked.key).into(),
                None => ShopReply::unreadable(),
            },
            status => refusal(status, &body, response, source),
        }
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }

    /// `server/polar/rate_limit.py`: 500 a minute with a token, 100 in the sandbox.
    fn calls_per_minute(&self, source: &ShopSource) -> usize {
        match (source.test_mode, source.api_key.is_some()) {
            (true, _) => 80,
            (false, true) => 400,
            (false, false) => 150,
        }
    }

    fn burst(&self, source: &ShopSource) -> Option<(usize, u64)> {
        source.api_key.is_none().then_some(PUBLIC_BURST)
    }
}

/// `LicenseKeyRead`, and the key that the record has now.
fn license(body: &Value, hash: &KeyedHash) -> Option<(ShopLicense, Option<String>)> {
    let status = match body["status"].as_str()? {
        "granted" => Status::Active,
        "revoked" | "disabled" => Status::Disabled,
        _ => return None,
    };
    let id = word(&body["id"])?;
    let reference = |kind: &str, value: &Value| {
        value.as_str().map(|id| hash.order(Polar.name(), &format!("{kind}:{id}")))
    };
    let limit = optional_count(&body["limit_activations"])?;
    Some((
        ShopLicense {
            seller: word(&body["organization_id"])?,
            product: Some(word(&body["benefit_id"])?),
            variant: Some(String::new()),
            until: optional_moment(&body["expires_at"])?,
            references: [("license", &body["id"]), ("customer", &body["customer_id"])]
                .iter()
                .filter_map(|(kind, value)| reference(kind, value))
                .collect(),
            handle: Some(id),
            activation_limit: limit,
            // A benefit without a limit of activations has no list of devices.
            activations: limit.map(|_| 0),
            ..ShopLicense::new(&Polar, status)
        },
        word(&body["key"]),
    ))
}

/// A key that was replaced by another one stops at once.
fn replaced(mut license: ShopLicense, now: Option<&str>, asked: &str) -> ShopLicense {
    if now.is_some_and(|now| !now.trim().eq_ignore_ascii_case(asked.trim())) {
        license.status = Status::Disabled;
    }
    license
}

fn refusal(status: u16, body: &Value, response: &ShopResponse, source: &ShopSource) -> ShopReply {
    let detail = body["detail"].as_str().unwrap_or_default();
    let ended = |status| {
        ShopReply::from(ShopLicense {
            seller: source.seller().to_owned(),
            ..ShopLicense::new(&Polar, status)
        })
    };
    match (status, body["error"].as_str(), detail) {
        (404, Some("ResourceNotFound"), "Not found") => ShopReply::NotFound,
        (404, Some("ResourceNotFound"), detail) if detail.contains("no longer active") => {
            ended(Status::Disabled)
        }
        (404, Some("ResourceNotFound"), detail) if detail.contains("has expired") => {
            ended(Status::Expired)
        }
        (401 | 403, ..) if source.api_key.is_some() => {
            ShopReply::Unknown(ShopError::credential(status, "polar.token"))
        }
        // An address that passed the limit of public calls is blocked for a minute.
        (429, ..) if source.api_key.is_none() && response.retry_after.is_none() => {
            ShopReply::Unknown(ShopError::Limited { retry_after: Some(BLOCKED) })
        }
        (422, ..) => ShopReply::Unknown(ShopError::Misconfigured(
            "it can't read the request; check `polar.organization_id` in licenses.sources".into(),
        )),
        _ => ShopReply::of_status(response),
    }
}

impl Instances for Polar {
    fn request(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
    ) -> Option<ShopRequest> {
        let (path, member, value) = match call {
            InstanceCall::Validate(id) => ("validate", "activation_id", id),
            InstanceCall::Activate(name) => ("activate", "label", name),
            InstanceCall::Deactivate(id) => ("deactivate", "activation_id", id),
        };
        let token = source.api_key.as_ref();
        let below = if token.is_some() { SERVER } else { PUBLIC };
        let mut body = json!({ "key": asked.key, "organization_id": source.seller() });
        body[member] = value.into();
        Some(ShopRequest::json(format!("{below}/{path}"), body).bearer(token))
    }

    fn read(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> InstanceReply {
        let body = response.json();
        let detail = body["detail"].as_str().unwrap_or_default();
        let unsaid = || ShopReply::unreadable();
        let (instance, reply) = match (call, response.status) {
            (InstanceCall::Activate(_), 200 | 201) => match word(&body["id"]) {
                Some(id) => {
                    let known = license(&body["license_key"], hash);
                    (Instance::Is(id), known.map_or_else(unsaid, |(license, _)| license.into()))
                }
                None => (Instance::Unsaid, unsaid()),
            },
            (InstanceCall::Activate(_), 403) if detail.contains("limit") => {
                (Instance::Full, unsaid())
            }
            (InstanceCall::Deactivate(_), 200 | 204) => (Instance::Released, unsaid()),
            (InstanceCall::Deactivate(_), 404) if body["error"] == "ResourceNotFound" => {
                (Instance::IsNot, unsaid())
            }
            (InstanceCall::Validate(id), 200) => match license(&body, hash) {
                Some((license, _)) => {
                    let is = body["activation"]["id"] == id;
                    let instance = if is { Instance::Is(id.to_owned()) } else { Instance::IsNot };
                    (instance, license.into())
                }
                None => (Instance::Unsaid, unsaid()),
            },
            // Of a key that is known the one that is not found is the activation.
            (InstanceCall::Validate(_), 404) if detail == "Not found" && asked.known.is_some() => {
                (Instance::IsNot, unsaid())
            }
            (_, status) => (Instance::Unsaid, refusal(status, &body, response, source)),
        };
        InstanceReply { reply, instance }
    }
}

/// Signed with the bytes of the secret's text: Polar encodes it before its library decodes it.
impl Webhook for Polar {
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
        let data = &event["data"];
        // Named by some events only; what is marked is asked about again, and nothing else happens.
        let seller = [
            &data["organization_id"],
            &data["organization"]["id"],
            &data["benefit"]["organization_id"],
        ];
        if seller.iter().any(|id| id.as_str().is_some_and(|id| id != source.seller())) {
            return Ok(None);
        }
        let is = |kind: &str| event["type"].as_str().is_some_and(|told| told.starts_with(kind));
        let named: &[(&str, &Value)] = if is("benefit_grant.") {
            &[
                ("license", &data["properties"]["license_key_id"]),
                ("license", &data["previous_properties"]["license_key_id"]),
                ("customer", &data["customer_id"]),
            ]
        } else if is("customer.") {
            &[("customer", &data["id"])]
        } else {
            &[("customer", &data["customer_id"]), ("customer", &data["customer"]["id"])]
        };
        let subjects = named.iter().filter_map(|(kind, value)| {
            let id = format!("{kind}:{}", value.as_str()?);
            Some(WebhookSubject::Reference(hash.order(Polar.name(), &id)))
        });
        Ok(Some(WebhookEvent { subjects: subjects.collect(), ..WebhookEvent::default() }))
    }
}
