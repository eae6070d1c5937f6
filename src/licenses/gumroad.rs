//! Gumroad's licence API: <https://gumroad.com/api#licenses>.
//!
//! A refunded, charged back or ended purchase is still `success: true`, so each is looked at. The
//! three dates of a membership are the *ends* of what was paid for: Gumroad sets `cancelled_at` to
//! the end of the period, so a date that lies ahead cuts nobody off. `increment_uses_count` is true
//! unless it is switched off. The answer holds the buyer's address and card; neither is read.

use gatekeeper_filters::kernel::{Code, UnixMs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    shop_client::{ShopClient, ShopResponse},
    shop_license::{self, LicenseVerdict, Shop, ShopError, ShopReply},
};
use crate::{
    config::settings::{BaseUrl, Gumroad},
    vault::KeyedHash,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Sold,
    /// By the seller.
    Disabled,
    /// The seller took the access back.
    Revoked,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShopLicense {
    pub status: Status,
    pub product: String,
    pub variant: String,
    pub test: bool,
    /// Refunded, charged back, or in a dispute that was not won.
    pub refunded: bool,
    /// The first of the dates on which a membership ends.
    pub ends: Option<UnixMs>,
    /// The sale's id, hashed.
    pub sale: Option<String>,
}

const VERIFY: &str = "/v2/licenses/verify";

/// Asks about a key of one product.
pub async fn verify(
    client: &ShopClient,
    base: &BaseUrl,
    (product, key): (&str, &str),
    hasher: &KeyedHash,
) -> ShopReply {
    let form = [("product_id", product), ("license_key", key), ("increment_uses_count", "false")];
    match client.post(base, VERIFY, &form).await {
        Ok(answer) => read(&answer, product, hasher),
        Err(trouble) => ShopReply::Unknown(trouble),
    }
}

/// An answer about a key of `product` to facts.
pub fn read(answer: &ShopResponse, product: &str, hasher: &KeyedHash) -> ShopReply {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = body["message"].as_str().unwrap_or_default();
    let gone = |status| {
        ShopReply::ShopLicense(shop_license::ShopLicense::Gumroad(ShopLicense {
            status,
            product: product.to_owned(),
            variant: String::new(),
            test: false,
            refunded: false,
            ends: None,
            sale: None,
        }))
    };
    match (answer.status, body["success"].as_bool()) {
        (200, Some(true)) => match purchase(&body, product, hasher) {
            Some(facts) => ShopReply::ShopLicense(shop_license::ShopLicense::Gumroad(facts)),
            None => ShopReply::Unknown(ShopError::unreadable()),
        },
        (404, Some(false)) if message.contains("disabled") => gone(Status::Disabled),
        (404, Some(false)) if message.contains("expired") => gone(Status::Revoked),
        (404, Some(false)) => ShopReply::NotFound,
        (429, _) => ShopReply::Unknown(ShopError::Limited { retry_after: answer.retry_after }),
        (500, Some(false)) if message.contains("product_id") => {
            ShopReply::Unknown(ShopError::Misconfigured(format!(
                "`{product}` is no product id; it is a permalink or mistyped"
            )))
        }
        (200, _) => ShopReply::Unknown(ShopError::unreadable()),
        (status, _) => ShopReply::Unknown(ShopError::status(status)),
    }
}

fn purchase(body: &Value, product: &str, hasher: &KeyedHash) -> Option<ShopLicense> {
    // Buyers who came by an import have the same members under another name.
    let member = |name: &str| body.get(name).filter(|purchase| purchase.is_object());
    let (purchase, is_import) = match member("purchase") {
        Some(purchase) => (purchase, false),
        None => (member("imported_customer")?, true),
    };
    // `as_json_for_license` has `refunded` for every purchase, but not for imported customers, who paid
    // elsewhere; `chargebacked` for single payments only, `test` for the seller's own purchases only.
    let said = |name: &str| match is_import {
        true => shop_license::optional_flag(&purchase[name]),
        false => shop_license::flag(&purchase[name]),
    };
    let may_say = |name: &str| shop_license::optional_flag(&purchase[name]);
    let mut ends: Option<UnixMs> = None;
    for name in ["subscription_ended_at", "subscription_cancelled_at", "subscription_failed_at"] {
        let at = match &purchase[name] {
            Value::Null => continue,
            at => shop_license::moment(at.as_str()?)?,
        };
        ends = Some(ends.map_or(at, |earlier| earlier.min(at)));
    }
    let lost = may_say("disputed")? && !may_say("dispute_won")?;
    let refunded = said("refunded")? | may_say("chargebacked")? | lost;
    Some(ShopLicense {
        status: Status::Sold,
        product: purchase["product_id"].as_str().unwrap_or(product).to_owned(),
        variant: purchase["variants"].as_str().unwrap_or_default().to_owned(),
        test: may_say("test")?,
        refunded,
        ends,
        sale: purchase["sale_id"].as_str().map(|id| hash_sale(id, hasher)),
    })
}

pub fn hash_sale(id: &str, hasher: &KeyedHash) -> String {
    hasher.order(Shop::Gumroad.name(), id)
}

/// What the facts mean for one account of the configuration, at `now`.
pub fn judge(facts: &ShopLicense, source: &Gumroad, now: UnixMs) -> LicenseVerdict {
    let product = source.products.iter().find(|(id, _)| **id == *facts.product);
    let Some((_, variants)) = product else {
        return LicenseVerdict::Invalid(Code::LicenseWrongProduct);
    };
    // Of a key that was taken back no variant is told.
    if let (Status::Disabled | Status::Revoked, Some(code)) = (facts.status, facts.ended(now)) {
        return LicenseVerdict::Invalid(code);
    }
    let Some(plan) = variants.plan(|variant| **variant == *facts.variant) else {
        return LicenseVerdict::Invalid(Code::LicenseWrongProduct);
    };
    if facts.test && !source.test_mode {
        return LicenseVerdict::Invalid(Code::LicenseInvalid);
    }
    match facts.ended(now) {
        Some(code) => LicenseVerdict::Invalid(code),
        None => LicenseVerdict::Valid { plan: plan.clone(), until: facts.ends },
    }
}

impl ShopLicense {
    /// Why it is no longer good at `now`.
    pub fn ended(&self, now: UnixMs) -> Option<Code> {
        match self.status {
            Status::Disabled => Some(Code::LicenseDisabled),
            Status::Revoked => Some(Code::LicenseExpired),
            Status::Sold if self.refunded => Some(Code::LicenseRefunded),
            Status::Sold => self.ends.is_some_and(|at| at <= now).then_some(Code::LicenseExpired),
        }
    }
}

#[cfg(test)]
mod tests;
