//! Licences of our own: the form of their keys, and what one source of them is configured with. Nothing here opens a
//! connection; `licenses::issued` keeps the records.

pub mod key_format;

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Code, Plan};
use secrecy::SecretString;

use self::key_format::KeyFormat;
use super::Shop;

/// Metric label and field of the YAML.
pub const NAME: &str = "issued";

#[derive(Debug, Clone)]
pub struct IssuedSource {
    pub format: KeyFormat,
    /// All plans: a licence names its own.
    pub plans: Vec<Arc<Plan>>,
    pub stripe: Option<StripeSource>,
    pub lemonsqueezy_api: Option<LemonSqueezyApi>,
    /// A key that one of these calls valid becomes a licence of our own.
    pub adopt: Vec<&'static dyn Shop>,
}

/// Where the money comes from.
#[derive(Debug, Clone)]
pub struct StripeSource {
    pub api_key: Option<SecretString>,
    pub webhook_secret: Option<SecretString>,
    /// Price id to plan.
    pub prices: Vec<(Arc<str>, Arc<Plan>)>,
    /// How long a licence holds past the end of the period that was paid.
    pub grace: Duration,
    /// Between two looks for events that were missed.
    pub sweep: Duration,
    /// The app's own scheme, for "open in the app".
    pub deep_link: Option<Arc<str>>,
}

impl StripeSource {
    /// Whether the API key is one of live mode.
    pub fn is_live(&self) -> bool {
        use secrecy::ExposeSecret;
        let is_test = |key: &SecretString| key.expose_secret().contains("_test_");
        !self.api_key.as_ref().is_some_and(is_test)
    }

    pub fn plan_of_price(&self, price: &str) -> Option<&Arc<Plan>> {
        self.prices.iter().find(|(id, _)| **id == *price).map(|(_, plan)| plan)
    }
}

/// What apps read that were written for Lemon Squeezy's licence API.
#[derive(Debug, Clone)]
pub struct LemonSqueezyApi {
    pub store_id: u64,
    /// Plan to variant id.
    pub variants: Vec<(Arc<str>, u64)>,
    /// Plan to product id; without one, the number of the variant.
    pub products: Vec<(Arc<str>, u64)>,
}

impl LemonSqueezyApi {
    /// Product and variant of a plan; 0 for what is not configured.
    pub fn ids_of(&self, plan: &str) -> (u64, u64) {
        let of = |list: &[(Arc<str>, u64)]| {
            list.iter().find(|(name, _)| **name == *plan).map(|(_, id)| *id)
        };
        let variant = of(&self.variants).unwrap_or_default();
        (of(&self.products).unwrap_or(variant), variant)
    }
}

impl IssuedSource {
    pub fn plan(&self, name: &str) -> Option<&Arc<Plan>> {
        self.plans.iter().find(|plan| &*plan.name == name)
    }

    /// The plan of a licence: that of its price as configured now, else the one it was issued with.
    ///
    /// # Errors
    /// The configuration has no such plan any more.
    pub fn plan_of(&self, price: Option<&str>, plan: &str) -> Result<&Arc<Plan>, Code> {
        let by_price = price.and_then(|price| self.stripe.as_ref()?.plan_of_price(price));
        by_price.or_else(|| self.plan(plan)).ok_or(Code::LicenseWrongProduct)
    }

    /// Whether test-mode licences must be refused.
    pub fn is_live(&self) -> bool {
        self.stripe.as_ref().is_none_or(StripeSource::is_live)
    }
}
