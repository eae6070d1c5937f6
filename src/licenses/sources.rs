//! The shops of one configuration: what is asked of which, and what their facts mean.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use gatekeeper_filters::kernel::{Code, Plan, UnixMs};

use crate::{
    config::settings::{LicenseCacheSettings, LicenseSource, Settings, ShopAccount},
    shops::{Asked, LicenseVerdict, Shop, ShopLicense, ShopReply},
};

pub struct ConfiguredShops {
    pub cache: LicenseCacheSettings,
    pub plans: Vec<Arc<Plan>>,
    /// In YAML order.
    accounts: Vec<Arc<ShopAccount>>,
    /// Each once, in YAML order.
    shops: Vec<&'static dyn Shop>,
    /// It would refuse too many valid licences at once to be plausible.
    held: AtomicBool,
    /// Shops whose valid keys become licences of our own.
    adopted: Vec<&'static dyn Shop>,
}

/// One call that may identify a key.
#[derive(Debug, Clone)]
pub struct ShopQuery {
    pub account: Arc<ShopAccount>,
    /// One of [`Shop::subjects`].
    pub subject: Arc<str>,
}

impl ShopQuery {
    pub fn shop(&self) -> &'static dyn Shop {
        self.account.source.shop
    }

    /// `budget:` of the source, else what the shop takes.
    pub fn calls_per_minute(&self) -> usize {
        match self.account.budget {
            Some((calls, span)) => (calls as u64 * 60_000).div_ceil(span.max(1)) as usize,
            None => self.shop().calls_per_minute(&self.account.source),
        }
    }

    /// What a mistake of the configuration is remembered by.
    pub fn name(&self) -> &str {
        if self.subject.is_empty() { self.account.source.seller() } else { &self.subject }
    }

    /// One call that answers both: stores of Lemon Squeezy at one address.
    fn is_same_call(&self, other: &ShopQuery) -> bool {
        let call = |query: &ShopQuery| {
            let asked = Asked { subject: &query.subject, ..Asked::about("") };
            query.shop().request(&query.account.source, &asked)
        };
        let is_same_place = self.account.base.at("") == other.account.base.at("");
        is_same_place && call(self).is_some_and(|asked| Some(asked) == call(other))
    }
}

fn adopted(settings: &Settings) -> Vec<&'static dyn Shop> {
    let of_source = |source: &LicenseSource| match source {
        LicenseSource::Issued(account) => account.source.adopt.clone(),
        _ => Vec::new(),
    };
    // Without a vault there is no such source.
    let sources = settings.licenses.sources.iter().filter(|_| settings.vault.is_some());
    sources.flat_map(of_source).collect()
}

impl ConfiguredShops {
    pub fn new(settings: &Settings) -> Self {
        let accounts: Vec<_> = settings
            .licenses
            .sources
            .iter()
            .filter_map(|source| match source {
                LicenseSource::Shop(account) => Some(account.clone()),
                _ => None,
            })
            .collect();
        let mut shops: Vec<&'static dyn Shop> = Vec::new();
        for account in &accounts {
            if !shops.contains(&account.source.shop) {
                shops.push(account.source.shop);
            }
        }
        Self {
            cache: settings.licenses.cache,
            plans: settings.plans.clone(),
            accounts,
            shops,
            held: AtomicBool::new(false),
            adopted: adopted(settings),
        }
    }

    /// Whether valid keys of a shop become licences of our own.
    pub fn adopts(&self, shop: &'static dyn Shop) -> bool {
        self.adopted.contains(&shop)
    }

    /// The shops among the sources, in YAML order.
    pub fn shops(&self) -> &[&'static dyn Shop] {
        &self.shops
    }

    /// The sources of one shop, in YAML order.
    pub fn accounts<'a>(
        &'a self,
        shop: &'static dyn Shop,
    ) -> impl Iterator<Item = &'a Arc<ShopAccount>> {
        self.accounts.iter().filter(move |account| account.source.shop == shop)
    }

    /// Everything to ask about a key of this shape; nothing when no source has such keys.
    pub fn questions(&self, key: &str) -> Vec<ShopQuery> {
        let fitting = self.shops.iter().filter(|shop| shop.has_shape(key));
        fitting.flat_map(|shop| self.questions_to(*shop)).collect()
    }

    /// Everything that could be asked of a shop.
    pub fn questions_to(&self, shop: &'static dyn Shop) -> Vec<ShopQuery> {
        let mut questions: Vec<ShopQuery> = Vec::new();
        for account in self.accounts(shop) {
            for subject in shop.subjects(&account.source) {
                let question = ShopQuery { account: account.clone(), subject };
                if !questions.iter().any(|known| known.is_same_call(&question)) {
                    questions.push(question);
                }
            }
        }
        questions
    }

    /// The question that these facts answered.
    pub fn question_about(&self, facts: &ShopLicense) -> Option<ShopQuery> {
        let mut questions = self.questions_to(facts.shop);
        let fits = |question: &ShopQuery| {
            let source = &question.account.source;
            let subject = &*question.subject;
            source.seller.as_deref().is_none_or(|seller| seller == facts.seller)
                && (subject.is_empty()
                    || facts.product.as_deref() == Some(subject)
                    || facts.labels.iter().any(|label| label == subject))
        };
        let place = questions.iter().position(fits);
        let place = place.or_else(|| questions.iter().position(|q| q.subject.is_empty()));
        place.map(|place| questions.swap_remove(place))
    }

    /// Accounts that know a key of this shape only together with a device.
    pub fn activated_first(&self, key: &str) -> Vec<ShopQuery> {
        let mut questions = self.questions(key);
        questions.retain(|question| {
            let source = &question.account.source;
            source.shop.instances().is_some_and(|instances| instances.comes_first(source))
        });
        questions
    }

    /// The meaning of a shop licence under this configuration: the best verdict of any source of that shop.
    pub fn judge(&self, facts: &ShopLicense, now: UnixMs) -> LicenseVerdict {
        let verdicts =
            self.accounts(facts.shop).map(|account| facts.shop.judge(facts, &account.source, now));
        let best = verdicts.reduce(LicenseVerdict::or);
        best.unwrap_or(LicenseVerdict::Invalid(Code::LicenseWrongProduct))
    }

    /// Label of `gatekeeper_license_checks_total`.
    pub fn verdict_name(&self, reply: &ShopReply, now: UnixMs) -> &'static str {
        match reply {
            ShopReply::Unknown(_) | ShopReply::NeedsDevice => "unknown",
            ShopReply::NotFound => "invalid",
            ShopReply::License(facts) if self.judge(facts, now).is_valid() => "valid",
            ShopReply::License(_) => "invalid",
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
