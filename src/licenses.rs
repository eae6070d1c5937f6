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
mod gumroad;
mod lemonsqueezy;
mod mass_refusal;
mod memory_cache;
mod redis_cache;
pub mod revocation;
mod shop_client;
mod shop_health;
mod shop_license;
mod shop_lookup;
mod single_flight;
mod sources;
pub mod validator;
pub mod webhook;

use std::sync::Arc;

use gatekeeper_filters::kernel::{
    Asking, Code, License, LicenseId, Licenses, Plan, Standing, async_trait,
};
use prometheus::IntCounter;
use rustc_hash::FxHashMap;
use secrecy::ExposeSecret;

pub use self::{
    shop_health::{STATES, ShopStatus},
    sources::ConfiguredShops,
    validator::LicenseValidator,
};
use crate::{
    config::settings::{LicenseSource, Settings},
    vault::KeyedHash,
};

/// The source of keys written in the file, in metrics and status.
pub const STATIC: &str = "static";

/// The licences of one configuration.
pub struct ConfiguredLicenses {
    pub validator: Arc<LicenseValidator>,
    pub sources: Arc<ConfiguredShops>,
    /// Ids are HMACs under the pepper: nobody outside can choose any that collide.
    listed: FxHashMap<LicenseId, Arc<Plan>>,
    /// Keys found in `listed`, counted.
    found: IntCounter,
}

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
        let sources = Arc::new(ConfiguredShops::new(settings));
        let found = validator.telemetry.metrics.license_checks(STATIC, "valid");
        Self { validator, sources, listed, found }
    }

    /// Whose key it is; which device it comes from does not matter.
    pub async fn identify(&self, asking: &Asking<'_>) -> Standing {
        let id = self.validator.hasher.id(asking.credential.expose());
        if self.validator.is_revoked(&id) {
            self.validator.telemetry.metrics.license_cache.negative.inc();
            return Standing::Invalid(Code::LicenseDisabled);
        }
        if let Some(plan) = self.listed.get(&id) {
            self.found.inc();
            return Standing::Valid(License { id, plan: plan.clone(), until: None });
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
    async fn check(&self, asking: &Asking<'_>) -> Standing {
        let standing = self.identify(asking).await;
        let license = match standing {
            Standing::Valid(license) if license.plan.devices_required => license,
            _ => return standing,
        };
        match Box::pin(self.validator.check_device(&self.sources, &license, asking)).await {
            Ok(()) => Standing::Valid(license),
            Err(Code::DeviceLimit) => Standing::OtherDevice(license),
            Err(_) => Standing::Unknown { why: "nobody could be asked about a device" },
        }
    }
}
