//! What apps ask that were written for Lemon Squeezy's licence API, in its shapes
//! (<https://docs.lemonsqueezy.com/api/license-api>): for issued and imported keys alike.

use std::{net::IpAddr, sync::Arc};

use gatekeeper_filters::kernel::{Code, Credential, License, LicenseQuery, LicenseStatus, UnixMs};
use serde_json::{Value, json};

use super::{
    book::IssuedBook,
    identify::{Found, KeyShape},
    record::IssuedLicense,
};
use crate::{
    licenses::{address_throttle::ClientPrefix, devices::Devices, sources::ConfiguredShops},
    shops::{LicenseVerdict, issued::LemonSqueezyApi},
};

/// Activations of one key a minute, at all gateways.
const ACTIVATIONS: usize = 5;
const MINUTE: u64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppCall {
    Activate,
    Validate,
    Deactivate,
}

impl AppCall {
    /// The member with the result.
    fn flag(self) -> &'static str {
        match self {
            AppCall::Activate => "activated",
            AppCall::Validate => "valid",
            AppCall::Deactivate => "deactivated",
        }
    }
}

/// What was asked.
pub struct AppQuestion<'a> {
    pub call: AppCall,
    pub key: &'a Credential,
    /// A name to activate, the id of an instance else.
    pub instance: Option<&'a str>,
    pub address: Option<IpAddr>,
}

/// Status and body.
type AppAnswer = (u16, Value);

const TOO_MANY: &str = "Too Many Attempts.";
const LIMIT: &str = "This license key has reached the activation limit.";
const NO_INSTANCE: &str = "instance_id not found.";

impl IssuedBook {
    /// `None` where the API is not served.
    pub async fn answer_app(
        &self,
        sources: &Arc<ConfiguredShops>,
        question: &AppQuestion<'_>,
    ) -> Option<AppAnswer> {
        let api = self.source.lemonsqueezy_api.as_ref()?;
        let now = UnixMs::now();
        let key = question.key.expose();
        let id = self.key_id(key);
        let asking = LicenseQuery {
            credential: question.key,
            address: question.address,
            instance: None,
            now,
        };
        let is_mistyped = matches!(self.shape(key), KeyShape::Mistyped);
        let is_new = !is_mistyped && self.validator.is_new(&id);
        if is_new && self.validator.refuse_guess(&id, &asking).is_some() {
            return Some(too_many());
        }
        let found = match is_mistyped {
            true => None,
            false => self.find(id, now).await.filter(|found| !found.is_replaced),
        };
        let Some(found) = found else {
            return Some(match self.validator.refuse_unknown(&id, &asking) {
                LicenseStatus::TooMany { .. } => too_many(),
                _ => not_found(question.call),
            });
        };
        let license = found.license()?;
        let verdict = match self.validator.is_revoked(&found.id) {
            true => LicenseVerdict::Invalid(Code::LicenseDisabled),
            false => self.verdict(license, now),
        };
        if let Some(address) = question.address.map(ClientPrefix::from) {
            self.validator.address_throttle.record_success(address, &id);
        }
        let of = |id| License { id, key: id, plan: self.any_plan(license), until: license.until };
        Some(match (question.call, verdict) {
            (AppCall::Deactivate, _) => {
                self.deactivate_app(sources, api, &found, of(found.id), question).await
            }
            (_, LicenseVerdict::Invalid(code)) => {
                let body = self.body(api, &found, question, Some(error_of(code)));
                (if question.call == AppCall::Validate { 200 } else { 400 }, body.await)
            }
            (AppCall::Validate, _) => self.validate_app(api, &found, question).await,
            (AppCall::Activate, _) => self.activate_app(api, &found, of(found.id), question).await,
        })
    }

    fn any_plan(&self, license: &IssuedLicense) -> Arc<gatekeeper_filters::kernel::Plan> {
        let plan = self.source.plan_of(license.price.as_deref(), &license.plan).ok();
        // A configuration without any plan is refused.
        plan.or(self.source.plans.first()).cloned().unwrap_or_else(|| unreachable!())
    }

    async fn validate_app(
        &self,
        api: &LemonSqueezyApi,
        found: &Found,
        question: &AppQuestion<'_>,
    ) -> AppAnswer {
        let Some(instance) = question.instance else {
            return (200, self.body(api, found, question, None).await);
        };
        let device = self.validator.hasher.device(&found.id, instance);
        match found.slot.record.device(&device) {
            Some(known) => {
                let mut body = self.body(api, found, question, None).await;
                body["instance"] = json!({
                    "id": instance,
                    "name": known.name.as_deref().unwrap_or_default(),
                    "created_at": moment(known.checked),
                });
                (200, body)
            }
            None => (404, self.body(api, found, question, Some(NO_INSTANCE)).await),
        }
    }

    async fn activate_app(
        &self,
        api: &LemonSqueezyApi,
        found: &Found,
        license: License,
        question: &AppQuestion<'_>,
    ) -> AppAnswer {
        if !self.may_activate_app(found).await {
            return too_many();
        }
        let name = question.instance.unwrap_or_default();
        let made = self.validator.activate_for_app(&license, name).await;
        match made {
            Ok((instance, _)) => {
                let mut body = self.body(api, found, question, None).await;
                let device = self.validator.hasher.device(&found.id, &instance);
                let slot = self.known(&found.id).await;
                let made = slot.and_then(|slot| Some(slot.record.device(&device)?.checked));
                body["instance"] = json!({
                    "id": instance,
                    "name": name,
                    "created_at": moment(made.unwrap_or_else(UnixMs::now)),
                });
                (200, body)
            }
            Err(reject) if reject.code == Code::DeviceLimit => {
                (400, self.body(api, found, question, Some(LIMIT)).await)
            }
            Err(_) => away(),
        }
    }

    async fn deactivate_app(
        &self,
        sources: &Arc<ConfiguredShops>,
        api: &LemonSqueezyApi,
        found: &Found,
        license: License,
        question: &AppQuestion<'_>,
    ) -> AppAnswer {
        let instance = question.instance.unwrap_or_default();
        let key = question.key;
        match self.validator.deactivate(sources, &license, key, instance).await {
            Ok(_) => (200, self.body(api, found, question, None).await),
            Err(reject) => match reject.code {
                Code::NotFound => (404, self.body(api, found, question, Some(NO_INSTANCE)).await),
                Code::RateLimited => too_many(),
                _ => away(),
            },
        }
    }

    /// Counts an activation, at all gateways; while the shared store is away, at this one.
    async fn may_activate_app(&self, found: &Found) -> bool {
        if !self.may_activate_app_here(found) {
            return false;
        }
        let Some(shared) = &self.validator.redis_cache else { return true };
        let what = format!("activations:{}", found.id.to_hex());
        !matches!(shared.count_in_minute(&what, ACTIVATIONS).await, Ok(Err(_)))
    }

    fn may_activate_app_here(&self, found: &Found) -> bool {
        let times = self.validator.issued.app_throttle.0.get_with(found.id, Arc::default);
        let (mut times, now) = (times.lock(), UnixMs::now());
        times.retain(|at| now.0.saturating_sub(at.0) < MINUTE);
        let may = times.len() < ACTIVATIONS;
        if may {
            times.push(now);
        }
        may
    }

    /// The answer with all its members, as of now.
    async fn body(
        &self,
        api: &LemonSqueezyApi,
        found: &Found,
        question: &AppQuestion<'_>,
        error: Option<&str>,
    ) -> Value {
        let slot = self.known(&found.id).await.unwrap_or_else(|| found.slot.clone());
        let record = &slot.record;
        let issued = record.issued.as_ref().and_then(|issued| issued.license());
        let none = IssuedLicense::default();
        let license = issued.unwrap_or(&none);
        let plan = self.any_plan(license);
        let devices = self.validator.devices_by(&plan, record);
        let Devices { used, max } = devices.unwrap_or(Devices { used: 0, max: None });
        let (now, ids) = (UnixMs::now(), license.shop.clone().unwrap_or_default());
        let status = match (self.validator.is_revoked(&found.id), license.ended(now)) {
            (false, None) if used == 0 => "inactive",
            (false, None) => "active",
            (false, Some(Code::LicenseExpired)) => "expired",
            _ => "disabled",
        };
        let (product, variant) = api.ids_of(&plan.name);
        let mut body = json!({
            "error": error,
            "license_key": {
                "id": number_of(found),
                "status": status,
                "key": question.key.expose().trim(),
                "activation_limit": license.max_devices.or(max),
                "activation_usage": used,
                "created_at": moment(license.created),
                "expires_at": license.until.map(moment),
                "test_mode": license.test,
            },
            "meta": {
                "store_id": ids.store.unwrap_or(api.store_id),
                "order_id": ids.order.unwrap_or_default(),
                "order_item_id": 0,
                "variant_id": ids.variant.unwrap_or(variant),
                "variant_name": &*plan.name,
                "product_id": ids.product.unwrap_or(product),
                "product_name": "",
                "customer_id": 0,
                "customer_name": "",
                "customer_email": "",
            },
        });
        body[question.call.flag()] = json!(error.is_none());
        if question.call == AppCall::Validate {
            body["instance"] = Value::Null;
        }
        body
    }
}

/// A number that stays the licence's own.
fn number_of(found: &Found) -> u64 {
    found.id.short() >> 33
}

fn error_of(code: Code) -> &'static str {
    match code {
        Code::LicenseExpired => "This license key is expired.",
        _ => "This license key is disabled.",
    }
}

fn not_found(call: AppCall) -> AppAnswer {
    let mut body = json!({
        "error": "license_key not found.", "license_key": null, "instance": null, "meta": null,
    });
    body[call.flag()] = json!(false);
    (404, body)
}

fn too_many() -> AppAnswer {
    (429, json!({ "message": TOO_MANY }))
}

fn away() -> AppAnswer {
    (503, json!({ "message": "Service Unavailable" }))
}

/// With microseconds, as the shop has it.
fn moment(at: UnixMs) -> String {
    let text = at.to_rfc3339();
    format!("{}.{:06}Z", text.trim_end_matches('Z'), at.0 % 1000 * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_microseconds() {
        assert_eq!(moment(UnixMs(1_772_442_895_007)), "2026-03-02T09:14:55.007000Z");
    }
}
