//! Licences: from the key an app sends to the plan its buyer has.
//!
//! A key is known by the HMAC of its normal form, so a hundred spellings share one quota and
//! nothing that is stored can be turned back into a key.

use std::sync::Arc;

use gatekeeper_filters::kernel::{
    Code, Credential, License, LicenseId, Licenses, Plan, Standing, UnixMs, async_trait,
};
use hmac::{Hmac, KeyInit, Mac};
use rustc_hash::FxHashMap;
use secrecy::ExposeSecret;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::settings::{self, LicenseSource};

/// Turns keys into ids under the pepper.
#[derive(Clone)]
pub struct Hasher(Hmac<Sha256>);

impl Hasher {
    pub fn new(pepper: &[u8; 32]) -> Self {
        // HMAC takes keys of any length (RFC 2104 section 2), so this arm is never reached.
        Self(Hmac::new_from_slice(pepper).unwrap_or_else(|_| unreachable!()))
    }

    /// Trimmed and upper-cased, then HMAC-SHA256: all 256 bits.
    pub fn id(&self, key: &str) -> LicenseId {
        let mut normal = Zeroizing::new(key.trim().to_owned());
        normal.make_ascii_uppercase();
        let mut mac = self.0.clone();
        mac.update(normal.as_bytes());
        LicenseId(mac.finalize().into_bytes().into())
    }
}

/// The licences of one configuration.
pub struct Book {
    hasher: Hasher,
    /// Ids are HMACs under the pepper: nobody outside can choose any that collide.
    listed: FxHashMap<LicenseId, Arc<Plan>>,
}

impl Book {
    pub fn new(settings: &settings::Licenses, hasher: Hasher) -> Self {
        let listed = settings
            .sources
            .iter()
            .flat_map(|source| match source {
                LicenseSource::Static(keys) => keys,
            })
            .map(|listed| (hasher.id(listed.key.expose_secret()), listed.plan.clone()))
            .collect();
        Self { hasher, listed }
    }
}

#[async_trait]
impl Licenses for Book {
    async fn check(&self, credential: &Credential, _now: UnixMs) -> Standing {
        let id = self.hasher.id(credential.expose());
        match self.listed.get(&id) {
            Some(plan) => Standing::Valid(License { id, plan: plan.clone(), until: None }),
            None => Standing::Invalid(Code::LicenseInvalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_key_is_one_licence() {
        let hasher = Hasher::new(&[7; 32]);
        let id = hasher.id("JSTAR-DEMO-0001");
        for spelling in [" jstar-demo-0001", "JStar-Demo-0001\t"] {
            assert_eq!(hasher.id(spelling), id);
        }
        assert_ne!(hasher.id("JSTAR-DEMO-0002"), id);
        assert_ne!(Hasher::new(&[8; 32]).id("JSTAR-DEMO-0001"), id);
    }
}
