//! What a shop says of a key. Facts hold nothing about the buyer and no plan: the plan is worked
//! out under the configuration of the moment, so a changed mapping acts at once.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Code, Plan, UnixMs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{gumroad, lemonsqueezy};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shop {
    LemonSqueezy,
    Gumroad,
}

impl Shop {
    pub const ALL: [Shop; 2] = [Shop::LemonSqueezy, Shop::Gumroad];

    /// Metric label and field of the YAML.
    pub fn name(self) -> &'static str {
        match self {
            Shop::LemonSqueezy => "lemonsqueezy",
            Shop::Gumroad => "gumroad",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "shop", rename_all = "lowercase")]
pub enum ShopLicense {
    LemonSqueezy(lemonsqueezy::ShopLicense),
    Gumroad(gumroad::ShopLicense),
}

impl ShopLicense {
    pub fn shop(&self) -> Shop {
        match self {
            ShopLicense::LemonSqueezy(_) => Shop::LemonSqueezy,
            ShopLicense::Gumroad(_) => Shop::Gumroad,
        }
    }

    /// Why it is no longer good, whosever it is: the explicit no of the shop, or its last day.
    pub fn ended(&self, now: UnixMs) -> Option<Code> {
        match self {
            ShopLicense::LemonSqueezy(facts) => facts.ended(now),
            ShopLicense::Gumroad(facts) => facts.ended(now),
        }
    }

    /// The order (or sale) it was bought with, hashed.
    pub fn order(&self) -> Option<&str> {
        match self {
            ShopLicense::LemonSqueezy(facts) => facts.order.as_deref(),
            ShopLicense::Gumroad(facts) => facts.sale.as_deref(),
        }
    }
}

/// What came back from a shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShopReply {
    ShopLicense(ShopLicense),
    /// The shop does not know the key.
    NotFound,
    /// No answer, or none that says anything about the key. Never a no.
    Unknown(ShopError),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShopError {
    #[error("it can't be reached: {0}")]
    Down(String),
    #[error("it asks for patience (429)")]
    Limited { retry_after: Option<Duration> },
    /// Our own mistake, which no waiting mends.
    #[error("it does not understand our question: {0}")]
    Misconfigured(String),
}

impl ShopError {
    pub fn status(status: u16) -> Self {
        ShopError::Down(format!("it answered {status}"))
    }

    pub fn unreadable() -> Self {
        ShopError::Down("it answered something that is no licence answer".into())
    }
}

/// What facts mean under the configuration of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LicenseVerdict {
    Valid {
        plan: Arc<Plan>,
        until: Option<UnixMs>,
    },
    /// One of the `License*` codes.
    Invalid(Code),
}

impl LicenseVerdict {
    pub fn is_valid(&self) -> bool {
        matches!(self, LicenseVerdict::Valid { .. })
    }

    /// Whether the licence is simply not one of ours: what a mistake of the shop or in the YAML
    /// would say of everybody.
    pub fn is_foreign(&self) -> bool {
        matches!(self, LicenseVerdict::Invalid(Code::LicenseWrongProduct | Code::LicenseInvalid))
    }

    /// Of two, the one a buyer should hear: a yes, then the no that tells most.
    #[must_use]
    pub fn or(self, other: LicenseVerdict) -> LicenseVerdict {
        let rank = |verdict: &LicenseVerdict| match verdict {
            LicenseVerdict::Valid { .. } => 0,
            LicenseVerdict::Invalid(
                Code::LicenseDisabled | Code::LicenseRefunded | Code::LicenseExpired,
            ) => 1,
            LicenseVerdict::Invalid(Code::LicenseWrongProduct) => 2,
            LicenseVerdict::Invalid(_) => 3,
        };
        if rank(&other) < rank(&self) { other } else { self }
    }
}

/// A member that says yes or no: `true` and `false`. `None` where anything else stands there, or nothing:
/// what a shop did not say must not be read as the answer that lets a buyer in.
pub(super) fn flag(value: &Value) -> Option<bool> {
    value.as_bool()
}

/// [`flag`] of a member that the shop leaves out where it is false.
pub(super) fn optional_flag(value: &Value) -> Option<bool> {
    if value.is_null() { Some(false) } else { flag(value) }
}

/// [`optional_flag`] of a member that the shop documents as the numbers 0 and 1 in some of its objects.
pub(super) fn optional_flag_or_number(value: &Value) -> Option<bool> {
    match value.as_u64() {
        Some(number @ 0..=1) => Some(number == 1),
        _ => optional_flag(value),
    }
}

/// RFC 3339, as both shops write moments.
pub(super) fn moment(text: &str) -> Option<UnixMs> {
    let at = text.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    Some(UnixMs(at.max(0) as u64))
}
