//! Keys that their shop knows only together with a device (Creem; Dodo without an API key): the first thing that is
//! asked about such a key is a place for a device.

use std::{net::IpAddr, sync::Arc};

use gatekeeper_filters::{
    kernel::{Code, Credential, License, LicenseId, Rejection, UnixMs},
    license,
};

use super::{
    address_throttle::{ClientPrefix, ThrottleDecision},
    call_budget::CallPriority,
    devices::{Devices, all_taken, too_many_activations},
    sources::{ConfiguredShops, ShopQuery},
    validator::LicenseValidator,
};
use crate::shops::{Asked, Instance, InstanceCall, LicenseVerdict, ShopReply};

/// What asking one shop for a place came to.
enum Outcome {
    Activated(License, String),
    Refused(Code),
    Full,
    Unanswered,
}

impl LicenseValidator {
    /// Takes a place for a device of a key that is not known yet. `None` where no shop works that way.
    ///
    /// # Errors
    /// 403 when every shop refuses it, 429 for too many tries, 503 when a shop can't be asked.
    pub async fn activate_first(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        (credential, address): (&Credential, Option<IpAddr>),
        name: &str,
    ) -> Option<Result<(License, String, Devices), Rejection>> {
        let questions = sources.activated_first(credential.expose());
        if questions.is_empty() {
            return None;
        }
        let (id, now) = (self.hasher.id(credential.expose()), UnixMs::now());
        let prefix = address.map(ClientPrefix::from);
        let class = match prefix.map(|prefix| self.address_throttle.admit(prefix, &id, now)) {
            Some(ThrottleDecision::TooMany { retry_after }) => {
                let standing = gatekeeper_filters::kernel::LicenseStatus::TooMany { retry_after };
                return Some(Err(license::decide(standing, None).err()?));
            }
            Some(ThrottleDecision::Clean) => CallPriority::Clean,
            Some(ThrottleDecision::Suspect) | None => CallPriority::Rest,
        };
        if !self.may_activate(&id, now) {
            return Some(Err(too_many_activations()));
        }
        let (mut refused, mut full, mut unanswered) = (None, false, false);
        for question in &questions {
            match self.activate_at(sources, question, (&id, credential), name, class).await {
                Outcome::Activated(license, instance) => {
                    if let Some(prefix) = prefix {
                        self.address_throttle.record_success(prefix, &id);
                    }
                    let devices = self.devices_of(&license).await;
                    let devices = devices.unwrap_or(Devices { used: 1, max: None });
                    return Some(Ok((license, instance, devices)));
                }
                Outcome::Refused(code) => refused = Some(code),
                Outcome::Full => full = true,
                Outcome::Unanswered => unanswered = true,
            }
        }
        Some(Err(match (unanswered, full, refused) {
            (true, ..) => license::check_unavailable("the shop did not answer about a device"),
            (false, true, _) => all_taken(None),
            (false, false, code) => {
                if let Some(prefix) = prefix {
                    self.address_throttle.record_failure(prefix, now);
                }
                let standing = gatekeeper_filters::kernel::LicenseStatus::Invalid(
                    code.unwrap_or(Code::LicenseInvalid),
                );
                license::decide(standing, None).err()?
            }
        }))
    }

    async fn activate_at(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        question: &ShopQuery,
        (id, credential): (&LicenseId, &Credential),
        name: &str,
        class: CallPriority,
    ) -> Outcome {
        let asked = Asked { subject: &question.subject, ..Asked::about(credential.expose()) };
        let call = InstanceCall::Activate(name);
        let told = self.ask_instance(id, question, &asked, call, class).await;
        let Some((instance, reply, moment)) = told else { return Outcome::Unanswered };
        let verdict = sources.verdict_name(&reply, moment);
        self.record_reply(question.shop(), question.name(), &reply, verdict);
        let facts = match (&reply, &instance) {
            (_, Instance::Full) => return Outcome::Full,
            (ShopReply::NotFound, _) => return Outcome::Refused(Code::LicenseInvalid),
            (ShopReply::License(facts), _) => facts,
            _ => return Outcome::Unanswered,
        };
        match (sources.judge(facts, moment), instance) {
            (LicenseVerdict::Valid { plan, until }, Instance::Is(instance)) => {
                self.note(sources, *id, &reply, moment).await;
                self.refused.invalidate(&self.hasher.spelling(credential.expose()));
                let account = self.account(id);
                let device = self.hasher.device(&account, &instance);
                self.set_device(id, &device, false, UnixMs::now()).await;
                Outcome::Activated(License { id: account, key: *id, plan, until }, instance)
            }
            (LicenseVerdict::Valid { .. }, _) => Outcome::Unanswered,
            (LicenseVerdict::Invalid(code), instance) => {
                // The place that was taken is given back: the licence is not ours, or is over.
                if let Instance::Is(instance) = instance {
                    let call = InstanceCall::Deactivate(&instance);
                    self.ask_instance(id, question, &asked, call, class).await;
                }
                Outcome::Refused(code)
            }
        }
    }
}
