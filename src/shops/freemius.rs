//! Freemius: `schema.d.ts` of its SDK (<https://github.com/Freemius/freemius-js>),
//! <https://freemius.com/help/api/licenses>, <https://freemius.com/help/documentation/saas/events-webhooks>.
//!
//! A key is searched for once, and the licence asked by its id from then on. The token belongs to one product, so
//! another product is another source. A plan may let an expired licence go on (`is_block_features: false`: only
//! updates end). Devices are counted by the gateway: an activation at Freemius is an installation with an id of its own.

use serde_json::Value;

use super::{
    Asked, Role, Scheme, Shop, ShopConstants, ShopError, ShopLicense, ShopReply, ShopRequest,
    ShopResponse, ShopSource, Status, Unreadable, Webhook, WebhookEvent, WebhookSubject, YamlField,
    is_plain,
    license::{flag, moment},
    named,
    wire::segment,
};
use crate::vault::KeyedHash;
use gatekeeper_filters::kernel::UnixMs;

pub struct Freemius;

const FIELDS: &[YamlField] = &[
    YamlField::new(
        "product_id",
        Role::SellerNumber,
        "The product's id: Settings > API & Keys. Keys of other products are refused.",
    )
    .required(),
    YamlField::new(
        "token",
        Role::ApiKey,
        "The product's bearer token: Settings > API Token. `env:NAME` or `file:PATH`.",
    )
    .required(),
    YamlField::new("plans", Role::Products, "Plan id (a number) to plan.").required(),
    YamlField::new("sandbox", Role::TestMode, "Accepts licences of Freemius' sandbox, too."),
];

static CONSTANTS: ShopConstants = ShopConstants {
    title: "Freemius",
    doc: "A product at Freemius.",
    base: Some("https://api.freemius.com"),
    fields: FIELDS,
    shape: "any key of 8 characters or more",
    names_licenses: true,
    ..named!("freemius")
};

impl Shop for Freemius {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    /// `sk_` and 29 characters of any kind, or whatever was imported.
    fn has_shape(&self, key: &str) -> bool {
        is_plain(key)
    }

    fn request(&self, source: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        let licenses = format!("/v1/products/{}/licenses", segment(source.seller()));
        let request = match asked.handle() {
            Some(id) => ShopRequest::get(format!("{licenses}/{}.json", segment(id))),
            None => ShopRequest::get(format!("{licenses}.json")).query("search", asked.key),
        };
        Some(request.bearer(source.api_key.as_ref()))
    }

    fn read(
        &self,
        _: &ShopSource,
        asked: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply {
        let body = response.json();
        let reply = |found: &Value| {
            license(found, asked.key, hash).map_or_else(ShopReply::unreadable, ShopReply::from)
        };
        match (response.status, asked.handle()) {
            (200, Some(_)) => reply(&body),
            (200, None) => match body["licenses"].as_array() {
                // The search goes through ids, too, and finds what only resembles the key.
                Some(found) => match found.iter().find(|one| one["secret_key"] == asked.key) {
                    Some(found) => reply(found),
                    None if found.iter().all(|one| one["secret_key"].is_string()) => {
                        ShopReply::NotFound
                    }
                    None => ShopReply::unreadable(),
                },
                None => ShopReply::unreadable(),
            },
            (401 | 403, _) => {
                ShopReply::Unknown(ShopError::credential(response.status, "freemius.token"))
            }
            // Asked by id, the licence was deleted; asked by key, the product is not there.
            (404, Some(_)) if body["error"].is_object() => ShopReply::NotFound,
            (404, None) if body["error"].is_object() => {
                ShopReply::Unknown(ShopError::Misconfigured(
                    "it does not know the product; check `freemius.product_id` in licenses.sources"
                        .into(),
                ))
            }
            _ => ShopReply::of_status(response),
        }
    }

    fn webhook(&self) -> Option<&dyn Webhook> {
        Some(self)
    }
}

fn license(body: &Value, asked: &str, hash: &KeyedHash) -> Option<ShopLicense> {
    let (id, user) = (number(&body["id"])?, number(&body["user_id"]));
    let blocks = flag(&body["is_block_features"])?;
    // A key that was replaced by another one stops at once; one that an app writes in other case is no other.
    let is_replaced = !body["secret_key"].as_str()?.eq_ignore_ascii_case(asked);
    let status = match flag(&body["is_cancelled"])? || is_replaced {
        true => Status::Disabled,
        false => Status::Active,
    };
    let own = Some(reference("license", &id, hash));
    let user = user.map(|user| reference("user", &user, hash));
    Some(ShopLicense {
        seller: number(&body["plugin_id"])?,
        product: Some(number(&body["plan_id"])?),
        variant: Some(String::new()),
        // 0 is production, 1 the sandbox.
        test: number(&body["environment"])? != "0",
        until: expiration(&body["expiration"])?.filter(|_| blocks),
        references: own.into_iter().chain(user).collect(),
        handle: Some(id),
        ..ShopLicense::new(&Freemius, status)
    })
}

fn reference(kind: &str, id: &str, hash: &KeyedHash) -> String {
    hash.order(Freemius.name(), &format!("{kind}:{id}"))
}

/// A number, which its API writes as text in some of its answers.
fn number(value: &Value) -> Option<String> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    Some(number.to_string())
}

/// `2025-12-31 23:59:59`, in UTC, or `null`: for ever.
fn expiration(value: &Value) -> Option<Option<UnixMs>> {
    if value.is_null() {
        return Some(None);
    }
    moment(&format!("{}Z", value.as_str()?)).map(Some)
}

/// Hex HMAC-SHA256 of the body with the product's secret key. An event holds the objects that it is about; a licence
/// that was deleted is named by its id alone.
impl Webhook for Freemius {
    fn scheme(&self) -> Scheme {
        Scheme::Hex("x-signature")
    }

    fn read(
        &self,
        body: &[u8],
        source: &ShopSource,
        hash: &KeyedHash,
    ) -> Result<Option<WebhookEvent>, Unreadable> {
        let event: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
        if number(&event["plugin_id"]).is_some_and(|product| product != source.seller()) {
            return Ok(None);
        }
        let license = &event["objects"]["license"];
        let key = license["secret_key"].as_str();
        let named = [
            ("license", &license["id"]),
            ("license", &event["data"]["license_id"]),
            ("user", &event["user_id"]),
        ];
        let named = named.iter().filter_map(|(kind, id)| {
            Some(WebhookSubject::Reference(reference(kind, &number(id)?, hash)))
        });
        let by_key = key.map(|key| WebhookSubject::License(hash.id(key)));
        Ok(Some(WebhookEvent {
            subjects: named.chain(by_key).collect(),
            spelling: key.map(|key| hash.spelling(key)),
            refund: false,
        }))
    }
}
