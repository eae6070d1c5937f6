//! Gumroad's licence API: <https://gumroad.com/api#licenses>.
//!
//! A refunded, charged back or ended purchase is still `success: true`, so each is looked at. The
//! three dates of a membership are the *ends* of what was paid for: Gumroad sets `cancelled_at` to
//! the end of the period, so a date that lies ahead cuts no buyer off. `increment_uses_count` is true
//! unless it is switched off. The answer holds the buyer's address and card; neither is read.

use std::sync::Arc;

use gatekeeper_filters::kernel::UnixMs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Asked, Role, Scheme, Shop, ShopConstants, ShopError, ShopLicense, ShopReply, ShopRequest,
    ShopResponse, ShopSource, Status, Unreadable, Webhook, WebhookEvent, WebhookSubject, YamlField,
    is_hex_groups,
    license::{flag, moment, optional_flag},
    named,
};
use crate::vault::KeyedHash;

pub struct Gumroad;

const VERIFY: &str = "/v2/licenses/verify";

const FIELDS: &[YamlField] = &[
    YamlField::new(
        "products",
        Role::NamedVariants,
        "Product id to variant to plan; the variant `*` is any other.",
    )
    .required(),
    YamlField::new("test_mode", Role::TestMode, "Accepts test purchases of the seller, too."),
];

static CONSTANTS: ShopConstants = ShopConstants {
    title: "Gumroad",
    doc: "A Gumroad account.",
    base: Some("https://api.gumroad.com"),
    version: "/v2",
    fields: FIELDS,
    shape: "four groups of eight hex digits",
    is_probed: true,
    ..named!("gumroad")
};

impl Shop for Gumroad {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    fn has_shape(&self, key: &str) -> bool {
        is_hex_groups(key, &[8, 8, 8, 8])
    }

    fn subjects(&self, source: &ShopSource) -> Vec<Arc<str>> {
        source.products.iter().map(|(product, _)| product.clone()).collect()
    }

    fn request(&self, _: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        let form = vec![
            ("product_id", asked.subject.to_owned()),
            ("license_key", asked.key.to_owned()),
            ("increment_uses_count", "false".to_owned()),
        ];
        Some(ShopRequest::form(VERIFY, form))
    }

    fn read(
        &self,
        _: &ShopSource,
        asked: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply {
        let product = asked.subject;
        let body = response.json();
        let message = body["message"].as_str().unwrap_or_default();
        let gone = |status| {
            ShopReply::from(ShopLicense {
                product: Some(product.to_owned()),
                ..ShopLicense::new(&Gumroad, status)
            })
        };
        match (response.status, body["success"].as_bool()) {
            (200, Some(true)) => match purchase(&body, product, hash) {
                Some(license) => license.into(),
                None => ShopReply::unreadable(),
            },
            (404, Some(false)) if message.contains("disabled") => gone(Status::Disabled),
            // The seller took the access back.
            (404, Some(false)) if message.contains("expired") => gone(Status::Expired),
            (404, Some(false)) => ShopReply::NotFound,
            (500, Some(false)) if message.contains("product_id") => {
                ShopReply::Unknown(ShopError::Misconfigured(format!(
                    "`{product}` is no product id; it is a permalink or mistyped"
                )))
            }
            _ => ShopReply::of_status(response),
        }
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
    status: StoredStatus,
    product: String,
    variant: String,
    test: bool,
    /// Refunded, charged back, or in a dispute that was not won.
    refunded: bool,
    /// The first of the dates on which a membership ends.
    ends: Option<UnixMs>,
    /// The sale's id, hashed.
    sale: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredStatus {
    Sold,
    /// By the seller.
    Disabled,
    /// The seller took the access back.
    Revoked,
}

impl Stored {
    fn of(license: &ShopLicense) -> Option<Self> {
        Some(Self {
            status: match license.status {
                Status::Disabled => StoredStatus::Disabled,
                Status::Expired => StoredStatus::Revoked,
                _ => StoredStatus::Sold,
            },
            product: license.product.clone()?,
            variant: license.variant.clone().unwrap_or_default(),
            test: license.test,
            refunded: license.status == Status::Refunded,
            ends: license.until,
            sale: license.order.clone(),
        })
    }

    fn license(self) -> ShopLicense {
        let (status, is_told) = match self.status {
            StoredStatus::Disabled => (Status::Disabled, false),
            StoredStatus::Revoked => (Status::Expired, false),
            StoredStatus::Sold if self.refunded => (Status::Refunded, true),
            StoredStatus::Sold => (Status::Active, true),
        };
        ShopLicense {
            product: Some(self.product),
            // For a revoked key the variant is not reported.
            variant: is_told.then_some(self.variant),
            test: self.test,
            until: self.ends,
            order: self.sale,
            ..ShopLicense::new(&Gumroad, status)
        }
    }
}

fn purchase(body: &Value, product: &str, hash: &KeyedHash) -> Option<ShopLicense> {
    // Imported customers have the same members under another name.
    let member = |name: &str| body.get(name).filter(|purchase| purchase.is_object());
    let (purchase, is_import) = match member("purchase") {
        Some(purchase) => (purchase, false),
        None => (member("imported_customer")?, true),
    };
    // `as_json_for_license` has `refunded` for every purchase, but not for imported customers, who paid
    // elsewhere; `chargebacked` for single payments only, `test` for the seller's own purchases only.
    let said = |name: &str| match is_import {
        true => optional_flag(&purchase[name]),
        false => flag(&purchase[name]),
    };
    let may_say = |name: &str| optional_flag(&purchase[name]);
    let mut ends: Option<UnixMs> = None;
    for name in ["subscription_ended_at", "subscription_cancelled_at", "subscription_failed_at"] {
        let at = match &purchase[name] {
            Value::Null => continue,
            at => moment(at.as_str()?)?,
        };
        ends = Some(ends.map_or(at, |earlier| earlier.min(at)));
    }
    let lost = may_say("disputed")? && !may_say("dispute_won")?;
    let refunded = said("refunded")? | may_say("chargebacked")? | lost;
    let stored = Stored {
        status: StoredStatus::Sold,
        product: purchase["product_id"].as_str().unwrap_or(product).to_owned(),
        variant: purchase["variants"].as_str().unwrap_or_default().to_owned(),
        test: may_say("test")?,
        refunded,
        ends,
        sale: purchase["sale_id"].as_str().map(|id| hash_sale(id, hash)),
    };
    Some(stored.license())
}

fn hash_sale(id: &str, hash: &KeyedHash) -> String {
    hash.order(Gumroad.name(), id)
}

/// A ping: not signed, so its address is the secret and it proves nothing (<https://gumroad.com/ping>).
impl Webhook for Gumroad {
    fn scheme(&self) -> Scheme {
        Scheme::Path
    }

    fn read(
        &self,
        body: &[u8],
        _: &ShopSource,
        hash: &KeyedHash,
    ) -> Result<Option<WebhookEvent>, Unreadable> {
        let field = |name: &str| {
            let mut fields = url::form_urlencoded::parse(body);
            fields.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
        };
        let key = field("license_key").filter(|key| !key.is_empty());
        let spelling = key.as_deref().map(|key| hash.spelling(key));
        let subject = match (key, field("sale_id")) {
            (Some(key), _) => Some(WebhookSubject::License(hash.id(&key))),
            (_, Some(sale)) => Some(WebhookSubject::Reference(hash_sale(&sale, hash))),
            _ => None,
        };
        Ok(Some(WebhookEvent { subjects: subject.into_iter().collect(), spelling, refund: false }))
    }
}

#[cfg(test)]
mod tests;
