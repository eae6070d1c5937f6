//! Licences: from the key an app sends to the plan its buyer has.
//!
//! A key is known by the HMAC of its normal form, so a hundred spellings share one quota and
//! nothing that is stored can be turned back into a key. Keys of the file are looked up in the
//! snapshot; keys of shops at the [`LicenseValidator`], which outlives every snapshot.

mod address_throttle;
mod cache_entry;
mod cache_sync;
pub mod call_budget;
mod call_queue;
mod clock;
mod device_throttle;
pub mod devices;
mod disk_cache;
mod first_activation;
pub mod issued;
mod key_check;
pub mod key_move;
mod key_moves;
pub mod lemonsqueezy_export;
mod lookup_start;
mod mass_refusal;
mod mass_refusal_rule;
mod memory_cache;
pub mod online;
mod redis_cache;
pub mod revocation;
mod shop_client;
mod shop_health;
mod shop_lookup;
mod shop_pace;
mod shop_probe;
mod single_flight;
mod sources;
pub mod validator;
mod verdict;
pub mod webhook;
mod webhook_dedup;

use std::sync::Arc;

use gatekeeper_filters::kernel::{
    Code, Credential, License, LicenseId, LicenseQuery, LicenseStatus, Licenses, Plan, UnixMs,
    async_trait,
};
use moka::sync::Cache;
use prometheus::IntCounter;
use rustc_hash::FxHashMap;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use self::{
    issued::{IssuedBook, KeyShape},
    key_move::Replacement,
};
pub use self::{
    shop_health::{STATES, ShopStatus},
    sources::ConfiguredShops,
    validator::LicenseValidator,
};
use crate::{
    config::settings::{LicenseSource, Settings},
    shops::{
        LicenseVerdict,
        signed::{self, SignedLicense, SignedSource},
    },
};

/// The source of keys written in the file, in metrics and status.
pub const STATIC: &str = "static";

/// The licences of one configuration.
pub struct ConfiguredLicenses {
    pub validator: Arc<LicenseValidator>,
    pub sources: Arc<ConfiguredShops>,
    /// Ids are HMACs under the pepper: a client cannot construct colliding ones.
    listed: FxHashMap<LicenseId, Arc<Plan>>,
    /// There is a list, even if an empty one.
    has_list: bool,
    /// Keys found in `listed`, counted.
    found: IntCounter,
    /// In YAML order.
    signed: Vec<Arc<SignedSource>>,
    /// Licences of our own, where they are configured and the vault is here.
    pub issued: Option<Arc<IssuedBook>>,
    /// Tokens that were verified, by their SHA-256: the source and its licence.
    verified: Cache<[u8; 32], Arc<SignedLicense>>,
}

/// The label of Stripe's webhooks.
const STRIPE: &str = "stripe";
/// Verified tokens that are remembered; a few megabytes.
const VERIFIED: u64 = 20_000;

impl ConfiguredLicenses {
    pub fn new(settings: &Settings, validator: Arc<LicenseValidator>) -> Self {
        let mut listed = FxHashMap::default();
        for source in &settings.licenses.sources {
            let LicenseSource::Static(keys) = source else { continue };
            let ids = keys.iter().map(|listed| {
                (validator.hasher.id(listed.key.expose_secret()), listed.plan.clone())
            });
            listed.extend(ids);
        }
        let of_kind = |source: &LicenseSource| match source {
            LicenseSource::Signed(source) => Some(source.clone()),
            _ => None,
        };
        let signed = settings.licenses.sources.iter().filter_map(of_kind).collect();
        let verified = Cache::new(VERIFIED);
        let is_list = |source: &LicenseSource| matches!(source, LicenseSource::Static(_));
        let has_list = settings.licenses.sources.iter().any(is_list);
        let sources = Arc::new(ConfiguredShops::new(settings));
        let found = validator.telemetry.metrics.license_checks(STATIC, "valid");
        let issued = settings.licenses.sources.iter().find_map(|source| match source {
            LicenseSource::Issued(account) => Some(account),
            _ => None,
        });
        let issued = issued.zip(settings.vault.as_ref()).map(|(account, vault)| {
            Arc::new(IssuedBook::new(validator.clone(), account, vault.clone()))
        });
        Self { validator, sources, listed, has_list, found, signed, issued, verified }
    }

    /// The sources that are decided here, without a call: their names, and the shop whose webhooks they take.
    pub fn local_sources(&self) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
        let listed = self.has_list.then_some((STATIC, None));
        let signed = (!self.signed.is_empty()).then_some((signed::NAME, None));
        let issued = self.issued.as_ref().map(|book| {
            let stripe = book.source.stripe.as_ref();
            let is_heard = stripe.is_some_and(|stripe| stripe.webhook_secret.is_some());
            (crate::shops::issued::NAME, is_heard.then_some(STRIPE))
        });
        listed.into_iter().chain(signed).chain(issued)
    }

    /// The licence that a key stands for.
    pub fn id(&self, credential: &Credential, now: UnixMs) -> LicenseId {
        match self.verify(credential.expose(), now) {
            Some(Ok(license)) => self.validator.hasher.signed(signed::NAME, &license.id),
            _ => self.key_id(credential.expose()),
        }
    }

    /// The id of a key that is no token.
    fn key_id(&self, key: &str) -> LicenseId {
        match &self.issued {
            Some(issued) => issued.key_id(key),
            None => self.validator.hasher.id(key),
        }
    }

    pub fn has_source(&self, name: &str) -> bool {
        let mut shops = self.sources.shops().iter().map(|shop| shop.name());
        shops.any(|shop| shop == name) || self.local_sources().any(|(local, _)| local == name)
    }

    /// The source that such a key would be asked about first; `None` where no source has such keys.
    pub fn source_of(&self, credential: &Credential, now: UnixMs) -> Option<&'static str> {
        let key = credential.expose();
        if self.listed.contains_key(&self.validator.hasher.id(key)) {
            return Some(STATIC);
        }
        if let Some(Ok(_)) = self.verify(key, now) {
            return Some(signed::NAME);
        }
        self.sources.questions(key).first().map(|question| question.shop().name())
    }

    /// Checks a signed licence; `None` where the key is no token of a configured source.
    fn verify(&self, key: &str, now: UnixMs) -> Option<Result<Arc<SignedLicense>, Code>> {
        let mut fitting = self.signed.iter().filter(|source| signed::has_shape(source.format, key));
        let first = fitting.next()?;
        let hash: [u8; 32] = Sha256::digest(key).into();
        if let Some(license) = self.verified.get(&hash) {
            // An expired token is checked again, for the right refusal.
            if license.until.is_none_or(|until| now < until) {
                return Some(Ok(license));
            }
        }
        let mut refusal = Code::LicenseInvalid;
        for source in std::iter::once(first).chain(fitting) {
            match signed::verify(source, key, now) {
                Ok(license) => {
                    let license = Arc::new(license);
                    self.verified.insert(hash, license.clone());
                    return Some(Ok(license));
                }
                Err(code) if refusal == Code::LicenseInvalid => refusal = code,
                Err(_) => {}
            }
        }
        Some(Err(refusal))
    }

    /// A signed licence, or its refusal; `None` where other sources decide.
    fn identify_signed(&self, key: &str, now: UnixMs) -> Option<LicenseStatus> {
        let metrics = &self.validator.telemetry.metrics;
        match self.verify(key, now)? {
            Ok(license) => {
                let id = self.validator.hasher.signed(signed::NAME, &license.id);
                if self.validator.is_revoked(&id) {
                    metrics.license_cache.negative.inc();
                    return Some(LicenseStatus::Invalid(Code::LicenseDisabled));
                }
                let replacement = self.validator.replacement(&id);
                if let Some(over) = replacement.filter(|known| known.is_over(now)) {
                    metrics.license_cache.negative.inc();
                    return Some(over.refusal());
                }
                metrics.license_checked(signed::NAME, "valid");
                let (plan, until) = (license.plan.clone(), license.until);
                Some(LicenseStatus::Valid(License { id, key: id, plan, until }))
            }
            // Signed by another key: it could still be known to a shop.
            Err(Code::LicenseInvalid) => {
                metrics.license_checked(signed::NAME, "invalid");
                None
            }
            Err(code) => {
                metrics.license_checked(signed::NAME, "invalid");
                Some(LicenseStatus::Invalid(code))
            }
        }
    }

    /// Whose key it is; which device it comes from does not matter.
    pub async fn identify(&self, asking: &LicenseQuery<'_>) -> LicenseStatus {
        let id = self.key_id(asking.credential.expose());
        let standing = match self.validator.replacement(&id) {
            None => self.ask_sources(id, asking).await,
            Some(replacement) => self.ask_about_replaced(id, &replacement, asking).await,
        };
        match standing {
            LicenseStatus::Valid(license) => self.count_on(license),
            standing => standing,
        }
    }

    /// A key that replaced another one continues what that one used, and falls with it.
    fn count_on(&self, license: License) -> LicenseStatus {
        let account = self.validator.account(&license.key);
        if account != license.key && self.validator.is_revoked(&account) {
            self.validator.telemetry.metrics.license_cache.negative.inc();
            return LicenseStatus::Invalid(Code::LicenseDisabled);
        }
        LicenseStatus::Valid(License { id: account, ..license })
    }

    /// Whose a key is that another one replaced. While it is still taken, the word of the new key's source counts
    /// first, then its own source's, then what was last known of it.
    async fn ask_about_replaced(
        &self,
        id: LicenseId,
        replacement: &Replacement,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        if replacement.is_over(asking.now) {
            self.validator.telemetry.metrics.license_cache.negative.inc();
            return replacement.refusal();
        }
        let valid = |plan: &Arc<Plan>, until| {
            LicenseStatus::Valid(License { id, key: id, plan: plan.clone(), until })
        };
        let now = self.validator.newest(replacement.by);
        if let Some(plan) = self.listed.get(&now) {
            return valid(plan, None);
        }
        let record = self.validator.memory_cache.get(&now);
        let verdict = record
            .filter(|kept| kept.record.facts.is_some() && !self.validator.is_revoked(&now))
            .map(|kept| self.validator.verdict(&self.sources, &kept.record, asking.now));
        if let Some(LicenseVerdict::Valid { plan, until }) = verdict {
            return valid(&plan, until);
        }
        let own = self.ask_sources(id, asking).await;
        let is_vague = matches!(
            own,
            LicenseStatus::Invalid(Code::LicenseInvalid) | LicenseStatus::Unknown { .. }
        );
        let known = self.validator.memory_cache.get(&id).filter(|_| is_vague);
        let last = known.and_then(|kept| self.sources.plan(kept.record.good.as_ref()?).cloned());
        last.map_or(own, |plan| valid(&plan, Some(replacement.accepted_until)))
    }

    async fn ask_sources(&self, id: LicenseId, asking: &LicenseQuery<'_>) -> LicenseStatus {
        if self.validator.is_revoked(&id) || self.validator.is_revoked(&self.validator.account(&id))
        {
            self.validator.telemetry.metrics.license_cache.negative.inc();
            return LicenseStatus::Invalid(Code::LicenseDisabled);
        }
        if let Some(plan) = self.listed.get(&id) {
            self.found.inc();
            let plan = plan.clone();
            return LicenseStatus::Valid(License { id, key: id, plan, until: None });
        }
        if let Some(standing) = self.identify_signed(asking.credential.expose(), asking.now) {
            return standing;
        }
        let mut is_new = false;
        if let Some(issued) = &self.issued {
            let shape = issued.shape(asking.credential.expose());
            if matches!(shape, KeyShape::Mistyped) {
                return self.validator.refuse_unknown(&id, asking);
            }
            is_new = self.validator.is_new(&id);
            if is_new && let Some(refused) = self.validator.refuse_guess(&id, asking) {
                return refused;
            }
            // In a box of its own, as below.
            if let Some(standing) = Box::pin(issued.identify(id, asking.now)).await {
                if is_new {
                    self.validator.record_known(&id, asking);
                }
                if self.sources.shops().is_empty() || !issued.has_news(&id, asking.now) {
                    return standing;
                }
                let _ = Box::pin(self.validator.check(&self.sources, id, asking)).await;
                return issued.status_now(id, asking.now).await.unwrap_or(standing);
            }
            if matches!(shape, KeyShape::Ours(_)) {
                return self.validator.refuse_unknown(&id, asking);
            }
        }
        if self.sources.shops().is_empty() {
            self.validator.telemetry.metrics.license_checked(STATIC, "invalid");
            return self.validator.refuse_unknown(&id, asking);
        }
        // In a box of its own: every request carries this future, few come here.
        let standing = Box::pin(self.validator.check(&self.sources, id, asking)).await;
        if is_new && matches!(standing, LicenseStatus::Valid(_)) {
            self.validator.record_known(&id, asking);
        }
        standing
    }
}

#[async_trait]
impl Licenses for ConfiguredLicenses {
    async fn check(&self, asking: &LicenseQuery<'_>) -> LicenseStatus {
        let standing = self.identify(asking).await;
        let license = match standing {
            LicenseStatus::Valid(license) if license.plan.devices_required => license,
            _ => return standing,
        };
        match Box::pin(self.validator.check_device(&self.sources, &license, asking)).await {
            Ok(()) => LicenseStatus::Valid(license),
            Err(Code::DeviceLimit) => LicenseStatus::OtherDevice(license),
            Err(_) => LicenseStatus::Unknown { why: "the shop could not be asked about a device" },
        }
    }
}
