//! Licences: from the key an app sends to the plan its buyer has.
//!
//! A key is known by the HMAC of its normal form, so a hundred spellings share one quota and
//! nothing that is stored can be turned back into a key. Keys of the file are looked up in the
//! snapshot; keys of shops at the [`Desk`], which outlives every snapshot.

pub mod budget;
mod client;
pub mod desk;
pub mod devices;
mod facts;
mod flights;
mod gumroad;
mod hasher;
mod health;
mod lemonsqueezy;
mod lookup;
mod record;
mod records;
pub mod revoke;
mod set_back;
mod shared;
mod sharing;
mod shelf;
mod sources;
mod turnstile;
mod upheaval;
mod visitors;
pub mod webhook;

use std::sync::Arc;

use gatekeeper_filters::kernel::{
    Asking, Code, License, LicenseId, Licenses, Plan, Standing, async_trait,
};
use prometheus::IntCounter;
use rustc_hash::FxHashMap;
use secrecy::ExposeSecret;

pub use self::{
    desk::Desk,
    hasher::Hasher,
    health::{Report, STATES},
    sources::Sources,
};
use crate::config::settings::{LicenseSource, Settings};

/// The source of keys written in the file, in metrics and status.
pub const STATIC: &str = "static";

/// The licences of one configuration.
pub struct Book {
    pub desk: Arc<Desk>,
    pub sources: Arc<Sources>,
    /// Ids are HMACs under the pepper: nobody outside can choose any that collide.
    listed: FxHashMap<LicenseId, Arc<Plan>>,
    /// Keys found in `listed`, counted.
    found: IntCounter,
}

impl Book {
    pub fn new(settings: &Settings, desk: Arc<Desk>) -> Self {
        let mut listed = FxHashMap::default();
        for source in &settings.licenses.sources {
            let LicenseSource::Static(keys) = source else { continue };
            let ids = keys
                .iter()
                .map(|listed| (desk.hasher.id(listed.key.expose_secret()), listed.plan.clone()));
            listed.extend(ids);
        }
        let sources = Arc::new(Sources::new(settings));
        let found = desk.telemetry.metrics.license_checks(STATIC, "valid");
        Self { desk, sources, listed, found }
    }

    /// Whose key it is; which device it comes from does not matter.
    pub async fn identify(&self, asking: &Asking<'_>) -> Standing {
        let id = self.desk.hasher.id(asking.credential.expose());
        if self.desk.is_revoked(&id) {
            self.desk.telemetry.metrics.license_cache.negative.inc();
            return Standing::Invalid(Code::LicenseDisabled);
        }
        if let Some(plan) = self.listed.get(&id) {
            self.found.inc();
            return Standing::Valid(License { id, plan: plan.clone(), until: None });
        }
        if self.sources.shops().is_empty() {
            self.desk.telemetry.metrics.license_checked(STATIC, "invalid");
            return self.desk.refuse_unknown(&id, asking);
        }
        // In a box of its own: every request carries this future, few come here.
        Box::pin(self.desk.check(&self.sources, id, asking)).await
    }
}

#[async_trait]
impl Licenses for Book {
    async fn check(&self, asking: &Asking<'_>) -> Standing {
        let standing = self.identify(asking).await;
        let license = match standing {
            Standing::Valid(license) if license.plan.devices_required => license,
            _ => return standing,
        };
        match Box::pin(self.desk.check_device(&self.sources, &license, asking)).await {
            Ok(()) => Standing::Valid(license),
            Err(Code::DeviceLimit) => Standing::OtherDevice(license),
            Err(_) => Standing::Unknown { why: "nobody could be asked about a device" },
        }
    }
}
