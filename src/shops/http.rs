//! A server of the operator's own: `conf/licence-server.openapi.yaml` describes it,
//! `examples/licence-server` is one.
//!
//! The request is `POST {key, device?}`, the answer `{verdict, plan, until?, max_devices?, id?}`. Any other
//! answer says nothing about the key.

use serde_json::{Value, json};

use super::{
    Asked, Role, Scheme, Shop, ShopConstants, ShopError, ShopLicense, ShopReply, ShopRequest,
    ShopResponse, ShopSource, Status, Unreadable, Webhook, WebhookEvent, WebhookSubject, YamlField,
    is_plain,
    license::{optional_count, optional_moment, word},
    named,
};
use crate::vault::KeyedHash;

pub struct Http;

const FIELDS: &[YamlField] = &[
    YamlField::new("url", Role::Url, "Where keys are asked about; the whole address.").required(),
    YamlField::new(
        "token",
        Role::ApiKey,
        "Sent as `Authorization: Bearer`; `env:NAME` or `file:PATH`.",
    ),
];

static CONSTANTS: ShopConstants = ShopConstants {
    doc: "A licence server of your own.",
    version: "",
    fields: FIELDS,
    shape: "any key of 8 characters or more",
    names_licenses: true,
    ..named!("http")
};

impl Shop for Http {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    fn has_shape(&self, key: &str) -> bool {
        is_plain(key)
    }

    fn request(&self, source: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        let mut body = json!({ "key": asked.key });
        if let Some(device) = asked.instance {
            body["device"] = device.into();
        }
        Some(ShopRequest::json("", body).bearer(source.api_key.as_ref()))
    }

    fn read(
        &self,
        source: &ShopSource,
        _: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply {
        match response.status {
            200 => read(&response.json(), source, hash),
            401 | 403 => ShopReply::Unknown(ShopError::credential(response.status, "http.token")),
            _ => ShopReply::of_status(response),
        }
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }
}

fn read(body: &Value, source: &ShopSource, hash: &KeyedHash) -> ShopReply {
    let status = match body["verdict"].as_str() {
        Some("invalid") => return ShopReply::NotFound,
        Some("valid") => Status::Active,
        Some("expired") => Status::Expired,
        Some("disabled") => Status::Disabled,
        Some("refunded") => Status::Refunded,
        _ => return ShopReply::unreadable(),
    };
    let facts = || {
        let license = ShopLicense {
            plan: match &body["plan"] {
                Value::Null => None,
                plan => Some(word(plan)?),
            },
            until: optional_moment(&body["until"])?,
            references: match &body["id"] {
                Value::Null => Vec::new(),
                id => vec![reference(&word(id)?, hash)],
            },
            activation_limit: optional_count(&body["max_devices"])?,
            ..ShopLicense::new(&Http, status)
        };
        Some(license)
    };
    let Some(license) = facts() else { return ShopReply::unreadable() };
    match &license.plan {
        None if status == Status::Active => ShopReply::unreadable(),
        // The licence is identified; its plan is unknown to this configuration.
        Some(name) if !source.plans.iter().any(|plan| *plan.name == **name) => {
            ShopReply::Unknown(ShopError::Misconfigured(format!(
                "it names a plan that this configuration lacks: `{}`",
                name.chars().filter(|c| !c.is_control()).take(64).collect::<String>()
            )))
        }
        _ => license.into(),
    }
}

fn reference(id: &str, hash: &KeyedHash) -> String {
    hash.order(Http.name(), &format!("license:{id}"))
}

/// `{"key": ...}`, `{"id": ...}`, `{"keys": [...]}` or `{"ids": [...]}`; also below `data`.
impl Webhook for Http {
    fn scheme(&self) -> Scheme {
        Scheme::Standard
    }

    fn read(
        &self,
        body: &[u8],
        _: &ShopSource,
        hash: &KeyedHash,
    ) -> Result<Option<WebhookEvent>, Unreadable> {
        let event: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
        let data = if event["data"].is_object() { &event["data"] } else { &event };
        let texts = |one: &str, many: &str| -> Vec<String> {
            let list = data[many].as_array().into_iter().flatten();
            list.chain([&data[one]]).filter_map(word).collect()
        };
        let keys = texts("key", "keys");
        let ids = texts("id", "ids");
        if keys.is_empty() && ids.is_empty() {
            return Err(Unreadable);
        }
        let by_key = keys.iter().map(|key| WebhookSubject::License(hash.id(key)));
        let by_id = ids.iter().map(|id| WebhookSubject::Reference(reference(id, hash)));
        Ok(Some(WebhookEvent {
            subjects: by_key.chain(by_id).collect(),
            spelling: keys.first().map(|key| hash.spelling(key)),
            refund: false,
        }))
    }
}
