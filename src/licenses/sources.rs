//! The sources of one configuration: what is asked of which shop, and what its facts mean.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use gatekeeper_filters::kernel::{Code, Plan, UnixMs};

use super::{
    gumroad, lemonsqueezy,
    shop_license::{LicenseVerdict, Shop, ShopLicense, ShopReply},
};
use crate::config::settings::{
    BaseUrl, Gumroad, LemonSqueezy, LicenseCache, LicenseSource, Settings,
};

pub struct ConfiguredShops {
    pub cache: LicenseCache,
    pub plans: Vec<Arc<Plan>>,
    pub lemon_squeezy: Vec<LemonSqueezy>,
    pub gumroad: Vec<Gumroad>,
    /// In YAML order.
    shops: Vec<Shop>,
    /// It would refuse too many good licences at once to be believed.
    held: AtomicBool,
}

/// One call that could say something about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShopQuery {
    LemonSqueezy { base: BaseUrl },
    Gumroad { base: BaseUrl, product: Arc<str> },
}

impl ShopQuery {
    pub fn shop(&self) -> Shop {
        match self {
            ShopQuery::LemonSqueezy { .. } => Shop::LemonSqueezy,
            ShopQuery::Gumroad { .. } => Shop::Gumroad,
        }
    }
}

impl ConfiguredShops {
    pub fn new(settings: &Settings) -> Self {
        let mut sources = Self {
            cache: settings.licenses.cache,
            plans: settings.plans.clone(),
            lemon_squeezy: Vec::new(),
            gumroad: Vec::new(),
            shops: Vec::new(),
            held: AtomicBool::new(false),
        };
        for source in &settings.licenses.sources {
            let shop = match source {
                LicenseSource::Static(_) => continue,
                LicenseSource::LemonSqueezy(store) => {
                    sources.lemon_squeezy.push(store.clone());
                    Shop::LemonSqueezy
                }
                LicenseSource::Gumroad(account) => {
                    sources.gumroad.push(account.clone());
                    Shop::Gumroad
                }
            };
            if !sources.shops.contains(&shop) {
                sources.shops.push(shop);
            }
        }
        sources
    }

    /// The shops among the sources, in YAML order.
    pub fn shops(&self) -> &[Shop] {
        &self.shops
    }

    /// Everything to ask about a key of this shape; nothing when no source has such keys.
    pub fn questions(&self, key: &str) -> Vec<ShopQuery> {
        let fitting = self.shops.iter().filter(|shop| has_shape(**shop, key));
        fitting.flat_map(|shop| self.questions_to(*shop)).collect()
    }

    /// Everything that could be asked of a shop. One answer of Lemon Squeezy tells the store, so
    /// stores at one address are one question.
    pub fn questions_to(&self, shop: Shop) -> Vec<ShopQuery> {
        let mut questions = Vec::new();
        match shop {
            Shop::LemonSqueezy => {
                for source in &self.lemon_squeezy {
                    let question = ShopQuery::LemonSqueezy { base: source.base.clone() };
                    if !questions.contains(&question) {
                        questions.push(question);
                    }
                }
            }
            Shop::Gumroad => questions.extend(self.gumroad.iter().flat_map(|source| {
                source.products.iter().map(|(product, _)| ShopQuery::Gumroad {
                    base: source.base.clone(),
                    product: product.clone(),
                })
            })),
        }
        questions
    }

    /// The question that these facts answered.
    pub fn question_about(&self, facts: &ShopLicense) -> Option<ShopQuery> {
        match facts {
            ShopLicense::LemonSqueezy(facts) => {
                let own = self.lemon_squeezy.iter().find(|s| s.store_id == facts.store);
                let source = own.or(self.lemon_squeezy.first())?;
                Some(ShopQuery::LemonSqueezy { base: source.base.clone() })
            }
            ShopLicense::Gumroad(facts) => {
                self.questions_to(Shop::Gumroad).into_iter().find(|question| {
                    matches!(question, ShopQuery::Gumroad { product, .. } if **product == *facts.product)
                })
            }
        }
    }

    /// What facts mean under this configuration: the best that any source of that shop says.
    pub fn judge(&self, facts: &ShopLicense, now: UnixMs) -> LicenseVerdict {
        let best = match facts {
            ShopLicense::LemonSqueezy(facts) => self
                .lemon_squeezy
                .iter()
                .map(|source| lemonsqueezy::judge(facts, source, now))
                .reduce(LicenseVerdict::or),
            ShopLicense::Gumroad(facts) => self
                .gumroad
                .iter()
                .map(|source| gumroad::judge(facts, source, now))
                .reduce(LicenseVerdict::or),
        };
        best.unwrap_or(LicenseVerdict::Invalid(Code::LicenseWrongProduct))
    }

    /// Label of `gatekeeper_license_checks_total`.
    pub fn verdict_name(&self, reply: &ShopReply, now: UnixMs) -> &'static str {
        match reply {
            ShopReply::Unknown(_) => "unknown",
            ShopReply::NotFound => "invalid",
            ShopReply::ShopLicense(facts) if self.judge(facts, now).is_valid() => "valid",
            ShopReply::ShopLicense(_) => "invalid",
        }
    }

    /// From now on good licences that this configuration calls foreign are served.
    pub fn hold(&self) {
        self.held.store(true, Relaxed);
    }

    pub fn is_held(&self) -> bool {
        self.held.load(Relaxed)
    }

    pub fn plan(&self, name: &str) -> Option<&Arc<Plan>> {
        self.plans.iter().find(|plan| &*plan.name == name)
    }
}

/// Lemon Squeezy's keys are UUIDs, Gumroad's are four groups of eight hex digits.
fn has_shape(shop: Shop, key: &str) -> bool {
    let groups: &[usize] = match shop {
        Shop::LemonSqueezy => &[8, 4, 4, 4, 12],
        Shop::Gumroad => &[8, 8, 8, 8],
    };
    let mut found = key.split('-');
    let fits = groups.iter().all(|length| {
        found.next().is_some_and(|group| {
            group.len() == *length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    });
    fits && found.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_key_tells_its_shop() {
        let uuid = "3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34";
        let groups = "85DB562A-C11D4B06-A2335A6B-8C079166";
        for (key, lemon_squeezy, gumroad) in [
            (uuid, true, false),
            (&uuid.to_lowercase(), true, false),
            (groups, false, true),
            ("JSTAR-DEMO-0001", false, false),
            (&format!("{uuid}-1"), false, false),
            (&uuid.replace('F', "G"), false, false),
            ("", false, false),
        ] {
            assert_eq!(has_shape(Shop::LemonSqueezy, key), lemon_squeezy, "{key}");
            assert_eq!(has_shape(Shop::Gumroad, key), gumroad, "{key}");
        }
    }
}
