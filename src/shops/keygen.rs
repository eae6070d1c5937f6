//! Keygen, in the cloud or on a server of one's own: `app/services/license_validation_service.rb` of
//! <https://github.com/keygen-sh/keygen-api>, <https://keygen.sh/docs/api/licenses/#licenses-actions-validate-key>.
//!
//! `valid` judges, not `code`: a policy may let an expired licence, or one with too many machines, go on, and then
//! `EXPIRED` and `TOO_MANY_*` come with `valid: true`. The product is part of the question (`scope`) and compared
//! again in the answer.

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

pub struct Keygen;

const MEDIA: &str = "application/vnd.api+json";

const FIELDS: &[YamlField] = &[
    YamlField::new("account", Role::Seller, "The account's id or slug.").required(),
    YamlField::new(
        "product",
        Role::Scope,
        "The product's UUID; licences of other products are refused.",
    )
    .required(),
    YamlField::new("policies", Role::Products, "Policy id to plan."),
    YamlField::new(
        "entitlements",
        Role::Labels,
        "Entitlement code to plan; asked for in the order of this list, before `policies`.",
    ),
];

static CONSTANTS: ShopConstants = ShopConstants {
    title: "Keygen",
    doc: "A product of a Keygen account; `base_url` is a server of your own.",
    base: Some("https://api.keygen.sh"),
    fields: FIELDS,
    shape: "any key of 8 characters or more",
    names_licenses: true,
    ..named!("keygen")
};

impl Shop for Keygen {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    fn has_shape(&self, key: &str) -> bool {
        is_plain(key)
    }

    /// Entitlements are not part of a licence's answer: each is a question of its own, then the policy decides.
    fn subjects(&self, source: &ShopSource) -> Vec<std::sync::Arc<str>> {
        let labels = source.labels.iter().map(|(code, _)| code.clone());
        let policies = (!source.products.is_empty()).then(|| "".into());
        labels.chain(policies).collect()
    }

    fn request(&self, source: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        let mut scope = json!({ "product": source.scope.as_deref().unwrap_or_default() });
        if !asked.subject.is_empty() {
            scope["entitlements"] = json!([asked.subject]);
        }
        Some(validate(source, asked.key, &scope))
    }

    fn read(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply {
        read(source, asked, response, hash)
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }
}

fn path(source: &ShopSource, below: &str) -> String {
    format!("/v1/accounts/{}/{below}", segment(source.seller()))
}

fn validate(source: &ShopSource, key: &str, scope: &Value) -> ShopRequest {
    let body = json!({ "meta": { "key": key, "scope": scope } });
    ShopRequest::json(path(source, "licenses/actions/validate-key"), body).media(MEDIA)
}

fn read(
    source: &ShopSource,
    asked: &Asked<'_>,
    response: &ShopResponse,
    hash: &KeyedHash,
) -> ShopReply {
    let body = response.json();
    if response.status != 200 {
        return match response.status {
            // A validation needs no credential of ours, so these are about account and address.
            401 | 403 | 404 if body["errors"].is_array() => {
                ShopReply::Unknown(ShopError::Misconfigured(format!(
                    "it refuses the request ({}); check `keygen.account` and `base_url` in licenses.sources",
                    response.status
                )))
            }
            _ => ShopReply::of_status(response),
        };
    }
    let meta = &body["meta"];
    let (Some(valid), Some(code)) = (meta["valid"].as_bool(), meta["code"].as_str()) else {
        return ShopReply::unreadable();
    };
    if !body["data"].is_object() {
        // Only this code means that there is no such key.
        return match (valid, code) {
            (false, "NOT_FOUND") => ShopReply::NotFound,
            _ => ShopReply::unreadable(),
        };
    }
    match status_of(valid, code) {
        Some(status) => license(status, code, source, asked, &body["data"], hash)
            .map_or_else(ShopReply::unreadable, ShopReply::from),
        None => ShopReply::unreadable(),
    }
}

/// The meaning of `valid` and `code`. Machine limits do not concern the licence but its devices.
fn status_of(valid: bool, code: &str) -> Option<Status> {
    Some(match (valid, code) {
        (true, _) => Status::Active,
        (false, "EXPIRED" | "OVERDUE") => Status::Expired,
        (false, "SUSPENDED" | "BANNED") => Status::Disabled,
        (
            false,
            "NO_MACHINE"
            | "NO_MACHINES"
            | "FINGERPRINT_SCOPE_MISMATCH"
            | "FINGERPRINT_SCOPE_REQUIRED"
            | "FINGERPRINT_SCOPE_EMPTY"
            | "HEARTBEAT_NOT_STARTED"
            | "HEARTBEAT_DEAD",
        ) => Status::Active,
        (false, code) if code.starts_with("TOO_MANY_") => Status::Active,
        // The licence is another product's, another policy's, or lacks what was asked for.
        (false, "PRODUCT_SCOPE_MISMATCH" | "POLICY_SCOPE_MISMATCH" | "ENTITLEMENTS_MISSING") => {
            Status::Active
        }
        (false, "NOT_FOUND") => return None,
        (false, _) => Status::Refused,
    })
}

fn license(
    status: Status,
    code: &str,
    source: &ShopSource,
    asked: &Asked<'_>,
    data: &Value,
    hash: &KeyedHash,
) -> Option<ShopLicense> {
    let (attributes, related) = (&data["attributes"], &data["relationships"]);
    let id = word(&data["id"])?;
    let product = related["product"]["data"]["id"].as_str();
    let is_ours = code != "PRODUCT_SCOPE_MISMATCH"
        && product.is_none_or(|product| Some(product) == source.scope.as_deref());
    let policy = word(&related["policy"]["data"]["id"])?;
    let lacks = code == "ENTITLEMENTS_MISSING";
    let has_label = !asked.subject.is_empty() && !lacks;
    let expiry = optional_moment(&attributes["expiry"])?;
    let references =
        [("license", data["id"].as_str()), ("user", related["owner"]["data"]["id"].as_str())];
    Some(ShopLicense {
        seller: if is_ours { source.seller().to_owned() } else { String::new() },
        // What lacks the entitlement that was asked for may have another, so its policy counts only when asked for.
        product: Some(if lacks { String::new() } else { policy }),
        variant: Some(String::new()),
        labels: if has_label { vec![asked.subject.to_owned()] } else { Vec::new() },
        // Of an expired licence that its policy lets go on, the date ends nothing.
        until: if code == "EXPIRED" { None } else { expiry },
        references: references
            .iter()
            .filter_map(|(kind, id)| Some(hash.order(Keygen.name(), &format!("{kind}:{}", (*id)?))))
            .collect(),
        handle: Some(id),
        activation_limit: optional_count(&attributes["maxMachines"])?,
        activations: Some(related["machines"]["meta"]["count"].as_u64().unwrap_or_default()),
        ..ShopLicense::new(&Keygen, status)
    })
}

/// Machines. An instance is known by a fingerprint of its own, which is made from its name at the activation.
impl Instances for Keygen {
    fn request(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
    ) -> Option<ShopRequest> {
        let license = format!("License {}", asked.key);
        let request = match call {
            InstanceCall::Validate(id) => {
                let product = source.scope.as_deref().unwrap_or_default();
                validate(source, asked.key, &json!({ "product": product, "fingerprint": id }))
            }
            InstanceCall::Activate(name) => {
                let body = json!({ "data": {
                    "type": "machines",
                    "attributes": { "fingerprint": fingerprint()?, "name": name },
                    "relationships": { "license": { "data": { "type": "licenses", "id": asked.handle()? } } },
                } });
                ShopRequest::json(path(source, "machines"), body)
                    .media(MEDIA)
                    .header("authorization", license)
            }
            // `/machines/{id}` takes the fingerprint, too.
            InstanceCall::Deactivate(id) => {
                ShopRequest::delete(path(source, &format!("machines/{}", segment(id))))
                    .media(MEDIA)
                    .header("authorization", license)
            }
        };
        Some(request)
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
        let error = || body["errors"][0]["code"].as_str().unwrap_or_default().to_owned();
        let (instance, reply) = match (call, response.status) {
            (InstanceCall::Activate(_), 200 | 201) => {
                let id = word(&body["data"]["attributes"]["fingerprint"]);
                (id.map_or(Instance::Unsaid, Instance::Is), ShopReply::unreadable())
            }
            (InstanceCall::Activate(_), 422) if error().contains("LIMIT_EXCEEDED") => {
                (Instance::Full, ShopReply::unreadable())
            }
            (InstanceCall::Deactivate(_), 200..=204) => {
                (Instance::Released, ShopReply::unreadable())
            }
            (InstanceCall::Deactivate(_), 404) if body["errors"].is_array() => {
                (Instance::IsNot, ShopReply::unreadable())
            }
            (InstanceCall::Validate(id), 200) => {
                let instance =
                    match (body["meta"]["valid"].as_bool(), body["meta"]["code"].as_str()) {
                        (Some(true), _) => Instance::Is(id.to_owned()),
                        (
                            Some(false),
                            Some("FINGERPRINT_SCOPE_MISMATCH" | "NO_MACHINE" | "NO_MACHINES"),
                        ) => Instance::IsNot,
                        _ => Instance::Unsaid,
                    };
                let reply = match &instance {
                    Instance::Unsaid => read(source, asked, response, hash),
                    _ => ShopReply::unreadable(),
                };
                (instance, reply)
            }
            _ => (Instance::Unsaid, ShopReply::of_status(response)),
        };
        InstanceReply { reply, instance }
    }
}

fn fingerprint() -> Option<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    Some(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Signed with the account's Ed25519 key (<https://keygen.sh/docs/api/signatures/#webhook-signatures>), whose
/// public half stands in `webhook_secret`.
impl Webhook for Keygen {
    fn scheme(&self) -> Scheme {
        Scheme::Ed25519("keygen-signature")
    }

    fn read(
        &self,
        body: &[u8],
        _: &ShopSource,
        hash: &KeyedHash,
    ) -> Result<Option<WebhookEvent>, Unreadable> {
        let event: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
        // The payload is the resource as a text of JSON.
        let payload = event["data"]["attributes"]["payload"].as_str().unwrap_or_default();
        let payload: Value = serde_json::from_str(payload).map_err(|_| Unreadable)?;
        let data = &payload["data"];
        let license = match data["type"].as_str() {
            Some("licenses") => &data["id"],
            _ => &data["relationships"]["license"]["data"]["id"],
        };
        let user = if data["type"] == "users" { &data["id"] } else { &Value::Null };
        let named = [("license", license), ("user", user)];
        let subjects = named.iter().filter_map(|(kind, id)| {
            let id = format!("{kind}:{}", id.as_str()?);
            Some(WebhookSubject::Reference(hash.order(Keygen.name(), &id)))
        });
        let key = data["attributes"]["key"].as_str();
        let by_key = key.map(|key| WebhookSubject::License(hash.id(key)));
        Ok(Some(WebhookEvent {
            subjects: subjects.chain(by_key).collect(),
            spelling: key.map(|key| hash.spelling(key)),
            refund: false,
        }))
    }
}
