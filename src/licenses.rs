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
mod clock_rollback;
pub mod devices;
mod disk_cache;
mod first_activation;
mod mass_refusal;
mod memory_cache;
pub mod online;
mod redis_cache;
pub mod revocation;
mod shop_client;
mod shop_health;
mod shop_lookup;
mod shop_pace;
mod single_flight;
mod sources;
pub mod validator;
pub mod webhook;

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

pub use self::{
    shop_health::{STATES, ShopStatus},
    sources::ConfiguredShops,
    validator::LicenseValidator,
};
use crate::{
    config::settings::{LicenseSource, Settings},
    shops::signed::{self, SignedLicense, SignedSource},
};

/// The source of keys written in the file, in metrics and status.
pub const STATIC: &str = "static";

/// The licences of one configuration.
pub struct ConfiguredLicenses {
    pub validator: Arc<LicenseValidator>,
    pub sources: Arc<ConfiguredShops>,
    /// Ids are HMACs under the pepper: nobody outside can choose any that collide.
    listed: FxHashMap<LicenseId, Arc<Plan>>,
    /// There is a list, even if an empty one.
    has_list: bool,
    /// Keys found in `listed`, counted.
    found: IntCounter,
    /// In YAML order.
    signed: Vec<Arc<SignedSource>>,
    /// Tokens that were verified, by their SHA-256: the source and its licence.
    verified: Cache<[u8; 32], Arc<SignedLicense>>,
}

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
        Self { validator, sources, listed, has_list, found, signed, verified }
    }

    /// The sources that are decided here, without a call: their names.
    pub fn local_sources(&self) -> impl Iterator<Item = &'static str> {
        let listed = (self.has_list).then_some(STATIC);
        listed.into_iter().chain((!self.signed.is_empty()).then_some(signed::NAME))
    }

    /// The licence that a key stands for.
    pub fn id(&self, credential: &Credential, now: UnixMs) -> LicenseId {
        match self.verify(credential.expose(), now) {
            Some(Ok(license)) => self.validator.hasher.signed(signed::NAME, &license.id),
            _ => self.validator.hasher.id(credential.expose()),
        }
    }

    /// What the sources of signed licences say; `None` where the key is no token of theirs.
    fn verify(&self, key: &str, now: UnixMs) -> Option<Result<Arc<SignedLicense>, Code>> {
        let mut fitting = self.signed.iter().filter(|source| signed::has_shape(source.format, key));
        let first = fitting.next()?;
        let hash: [u8; 32] = Sha256::digest(key).into();
        if let Some(license) = self.verified.get(&hash) {
            // Past its end a token is looked at again, for what to say about it.
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

    /// A signed licence, or the refusal of one; `None` where it is for other sources to say.
    fn identify_signed(&self, key: &str, now: UnixMs) -> Option<LicenseStatus> {
        let metrics = &self.validator.telemetry.metrics;
        match self.verify(key, now)? {
            Ok(license) => {
                let id = self.validator.hasher.signed(signed::NAME, &license.id);
                if self.validator.is_revoked(&id) {
                    metrics.license_cache.negative.inc();
                    return Some(LicenseStatus::Invalid(Code::LicenseDisabled));
                }
                metrics.license_checked(signed::NAME, "valid");
                let (plan, until) = (license.plan.clone(), license.until);
                Some(LicenseStatus::Valid(License { id, plan, until }))
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
        let id = self.validator.hasher.id(asking.credential.expose());
        if self.validator.is_revoked(&id) {
            self.validator.telemetry.metrics.license_cache.negative.inc();
            return LicenseStatus::Invalid(Code::LicenseDisabled);
        }
        if let Some(plan) = self.listed.get(&id) {
            self.found.inc();
            return LicenseStatus::Valid(License { id, plan: plan.clone(), until: None });
        }
        if let Some(standing) = self.identify_signed(asking.credential.expose(), asking.now) {
            return standing;
        }
        if self.sources.shops().is_empty() {
            self.validator.telemetry.metrics.license_checked(STATIC, "invalid");
            return self.validator.refuse_unknown(&id, asking);
        }
        // In a box of its own: every request carries this future, few come here.
        Box::pin(self.validator.check(&self.sources, id, asking)).await
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
