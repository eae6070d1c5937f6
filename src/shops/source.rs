//! One source of the configuration, as its shop sees it.

use std::sync::Arc;

use gatekeeper_filters::kernel::Plan;
use secrecy::SecretString;

use super::{Shop, license::ShopLicense};

/// A member of a shop's YAML, and its role.
#[derive(Debug)]
pub struct YamlField {
    pub name: &'static str,
    pub role: Role,
    pub doc: &'static str,
    pub required: bool,
}

impl YamlField {
    pub const fn new(name: &'static str, role: Role, doc: &'static str) -> Self {
        Self { name, role, doc, required: false }
    }

    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The seller's number: compared with every answer.
    SellerNumber,
    Seller,
    /// One more id that requests and answers must name.
    Scope,
    /// Product to plan.
    Products,
    /// Product to variant to plan, where both are numbers.
    NumberedVariants,
    NamedVariants,
    /// Label of a licence to plan.
    Labels,
    /// Our own key for the shop's API.
    ApiKey,
    TestMode,
    /// Where the source is, where it has no address of its own.
    Url,
}

/// The variants of one product and their plans.
#[derive(Debug, Clone, Default)]
pub struct Variants {
    pub named: Vec<(Arc<str>, Arc<Plan>)>,
    /// The variant `*`.
    pub other: Option<Arc<Plan>>,
}

impl Variants {
    pub fn plan(&self, variant: &str) -> Option<&Arc<Plan>> {
        let named = self.named.iter().find(|(id, _)| **id == *variant).map(|(_, plan)| plan);
        named.or(self.other.as_ref())
    }

    pub fn plans(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.named.iter().map(|(_, plan)| plan).chain(&self.other)
    }
}

#[derive(Debug, Clone)]
pub struct ShopSource {
    pub shop: &'static dyn Shop,
    /// The store, organisation, business or account.
    pub seller: Option<Arc<str>>,
    pub scope: Option<Arc<str>>,
    /// By product id.
    pub products: Vec<(Arc<str>, Variants)>,
    /// By label of the licence; the first that a licence has counts.
    pub labels: Vec<(Arc<str>, Arc<Plan>)>,
    /// By name, for sources whose answers name plans.
    pub plans: Vec<Arc<Plan>>,
    /// Licences of test mode are taken, too.
    pub test_mode: bool,
    pub api_key: Option<SecretString>,
    pub webhook_secret: Option<SecretString>,
}

impl ShopSource {
    pub fn new(shop: &'static dyn Shop) -> Self {
        Self {
            shop,
            seller: None,
            scope: None,
            products: Vec::new(),
            labels: Vec::new(),
            plans: Vec::new(),
            test_mode: false,
            api_key: None,
            webhook_secret: None,
        }
    }

    pub fn seller(&self) -> &str {
        self.seller.as_deref().unwrap_or_default()
    }

    pub fn variants(&self, product: &str) -> Option<&Variants> {
        self.products.iter().find(|(id, _)| **id == *product).map(|(_, variants)| variants)
    }

    /// The plan of a licence of ours.
    pub fn plan(&self, license: &ShopLicense) -> Option<&Arc<Plan>> {
        if let Some(name) = &license.plan {
            return self.plans.iter().find(|plan| *plan.name == **name);
        }
        let labelled = self
            .labels
            .iter()
            .find(|(label, _)| license.labels.iter().any(|known| **known == **label));
        if let Some((_, plan)) = labelled {
            return Some(plan);
        }
        self.variants(license.product.as_deref()?)?.plan(license.variant.as_deref()?)
    }

    /// Every plan that a licence of this source can have.
    pub fn all_plans(&self) -> impl Iterator<Item = &Arc<Plan>> {
        let products = self.products.iter().flat_map(|(_, variants)| variants.plans());
        products.chain(self.labels.iter().map(|(_, plan)| plan)).chain(&self.plans)
    }
}

/// What is asked about, and what is known of it already.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub key: &'a str,
    /// One of [`Shop::subjects`].
    pub subject: &'a str,
    pub known: Option<&'a ShopLicense>,
    /// A device that was activated.
    pub instance: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub fn about(key: &'a str) -> Self {
        Self { key, subject: "", known: None, instance: None }
    }

    /// The shop's own id of the licence, once it is known.
    pub fn handle(&self) -> Option<&'a str> {
        self.known.and_then(|known| known.handle.as_deref())
    }
}
