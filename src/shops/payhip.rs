//! Payhip: <https://help.payhip.com/article/317-software-license-keys-new>.
//!
//! The secret belongs to one product, so another product is another source. A key that fails is an *empty* answer,
//! which is what a broken proxy sends as well: it refuses a key that never was good, and says nothing of a licence that
//! is known. A refund disables the key, which is said plainly. The answer holds the buyer's address; it is not read.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::{
    Asked, Role, Shop, ShopConstants, ShopError, ShopLicense, ShopReply, ShopRequest, ShopResponse,
    ShopSource, Status, YamlField, is_plain,
    license::{flag, word},
    named,
};
use crate::vault::KeyedHash;

pub struct Payhip;

const FIELDS: &[YamlField] = &[
    YamlField::new(
        "secret",
        Role::ApiKey,
        "The product's secret key: on its page, below Advanced options. `env:NAME` or `file:PATH`.",
    )
    .required(),
    YamlField::new(
        "products",
        Role::Products,
        "The product's link, the last part of payhip.com/b/LINK, to plan.",
    )
    .required(),
];

static CONSTANTS: ShopConstants = ShopConstants {
    title: "Payhip",
    doc: "A product at Payhip.",
    base: Some("https://payhip.com"),
    version: "/api/v2",
    fields: FIELDS,
    shape: "any key of 8 characters or more",
    ..named!("payhip")
};

impl Shop for Payhip {
    fn constants(&self) -> &'static ShopConstants {
        &CONSTANTS
    }

    /// Four groups of five, or one of the seller's own list.
    fn has_shape(&self, key: &str) -> bool {
        is_plain(key)
    }

    /// By product, so that a licence that is known is asked of the source that has its product's secret.
    fn subjects(&self, source: &ShopSource) -> Vec<Arc<str>> {
        source.products.iter().map(|(product, _)| product.clone()).collect()
    }

    fn request(&self, source: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest> {
        let secret = source.api_key.as_ref().map(ExposeSecret::expose_secret);
        let request = ShopRequest::get("/api/v2/license/verify").query("license_key", asked.key);
        Some(request.header("product-secret-key", secret.unwrap_or_default()))
    }

    fn read(
        &self,
        _: &ShopSource,
        asked: &Asked<'_>,
        response: &ShopResponse,
        _: &KeyedHash,
    ) -> ShopReply {
        let is_empty = response.body.trim_ascii().is_empty();
        match response.status {
            // 400 has been seen for it, too.
            200 | 400 if is_empty && asked.known.is_none() => ShopReply::NotFound,
            200 => license(response, asked.key).map_or_else(ShopReply::unreadable, ShopReply::from),
            401 | 403 => {
                ShopReply::Unknown(ShopError::credential(response.status, "payhip.secret"))
            }
            _ => ShopReply::of_status(response),
        }
    }
}

fn license(response: &ShopResponse, asked: &str) -> Option<ShopLicense> {
    let body = response.json();
    let data = &body["data"];
    let is_asked = data["license_key"].as_str()?.eq_ignore_ascii_case(asked);
    let status = match flag(&data["enabled"])? {
        true => Status::Active,
        false => Status::Disabled,
    };
    is_asked.then_some(ShopLicense {
        product: Some(word(&data["product_link"])?),
        variant: Some(String::new()),
        ..ShopLicense::new(&Payhip, status)
    })
}
