//! Turns the credential into a licence with a plan, or refuses.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kernel::{
    Code, Exchange, Filter, Hooks, License, LicenseQuery, LicenseStatus, Licenses, Rejection,
    Services, Spec, Verdict, async_trait,
};

/// YAML: `license`, no options.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LicenseSpec {}

impl Spec for LicenseSpec {
    const NAME: &'static str = "license";
    const SUMMARY: &'static str = "checks the licence key and finds its plan (401, 403, 503)";

    fn build(self, services: &Services) -> Result<Arc<dyn Filter>, String> {
        Ok(Arc::new(LicenseFilter {
            licenses: services.licenses.clone(),
            buy_url: services.buy_url.clone(),
        }))
    }
}

struct LicenseFilter {
    licenses: Arc<dyn Licenses>,
    buy_url: Option<Arc<str>>,
}

#[async_trait]
impl Filter for LicenseFilter {
    fn hooks(&self) -> Hooks {
        Hooks::ADMIT
    }

    async fn admit(&self, exchange: &mut Exchange) -> Verdict {
        let asking = LicenseQuery {
            credential: &exchange.credential,
            address: exchange.address,
            instance: exchange.instance_id.as_deref(),
            now: exchange.now,
        };
        let standing = self.licenses.check(&asking).await;
        exchange.license = Some(decide(standing, self.buy_url.as_ref())?);
        Ok(())
    }
}

/// The licence, or the refusal a buyer reads.
///
/// # Errors
/// 403 if a source refuses, 503 if none could be asked, 429 for too many keys.
pub fn decide(standing: LicenseStatus, buy_url: Option<&Arc<str>>) -> Result<License, Rejection> {
    match standing {
        LicenseStatus::Valid(license) => Ok(license),
        LicenseStatus::Invalid(code) => {
            Err(Rejection::new(code, words(code)).upgrade_url(buy_url.cloned()))
        }
        LicenseStatus::OtherDevice(license) => {
            let reject = Rejection::new(Code::DeviceLimit, words(Code::DeviceLimit));
            Err(reject.upgrade_url(license.plan.upgrade_url.clone()))
        }
        LicenseStatus::Replaced { say } => {
            Err(Rejection::new(Code::LicenseDisabled, &*say).upgrade_url(buy_url.cloned()))
        }
        LicenseStatus::Unknown { why } => Err(check_unavailable(why)),
        LicenseStatus::TooMany { retry_after } => Err(Rejection::new(
            Code::RateLimited,
            "Too many licence keys were tried from here. Please wait a minute and try again.",
        )
        .retry_after(retry_after)),
    }
}

/// The refusal when no source could be asked; `why` is for the operator.
pub fn check_unavailable(why: &str) -> Rejection {
    Rejection::new(
        Code::LicenseCheckUnavailable,
        "Your licence could not be checked just now. Please try again in a moment.",
    )
    .internal(why)
    .retry_after(5)
}

/// What a buyer reads when a licence is refused.
fn words(code: Code) -> &'static str {
    match code {
        Code::LicenseExpired => "This licence has expired. Renew it to go on.",
        Code::LicenseDisabled => "This licence has been disabled. Please contact the seller.",
        Code::LicenseRefunded => "This licence was refunded and is no longer valid.",
        Code::LicenseWrongProduct => "This licence is for another product.",
        Code::DeviceLimit => {
            "This device is not activated for this licence. Activate it in the app; if all places \
             are taken, deactivate another device first."
        }
        _ => "This licence key is not valid. Check it for typing errors.",
    }
}
