//! What a shop answers about a key. It contains nothing about the buyer and no verdict: the plan is
//! determined under the live configuration, so a changed mapping acts at once.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Code, Plan, UnixMs};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::Value;

use super::{Shop, by_name, source::ShopSource};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Active,
    /// Valid, and no device was activated so far.
    Inactive,
    Expired,
    /// By the seller.
    Disabled,
    /// The money was given back, or is being fought over.
    Refunded,
    /// Not valid, without a reason from the shop.
    Refused,
}

/// What a shop answered about one licence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopLicense {
    pub shop: &'static dyn Shop,
    pub status: Status,
    pub seller: String,
    /// `None`: the shop leaves it out, as for a licence that is no longer valid.
    pub product: Option<String>,
    pub variant: Option<String>,
    /// Entitlements that the licence has.
    pub labels: Vec<String>,
    /// The plan's name, from a server of the operator's own.
    pub plan: Option<String>,
    pub test: bool,
    /// `None`: for ever, or as long as the subscription.
    pub until: Option<UnixMs>,
    /// The order it was bought with, hashed.
    pub order: Option<String>,
    /// What else webhooks name it by, hashed: the customer, the shop's own id of the licence.
    pub references: Vec<String>,
    /// The shop's own id of the licence, for the next question.
    pub handle: Option<String>,
    /// Most activations, `None` for no limit or where the shop has no list of devices.
    pub activation_limit: Option<u64>,
    /// `None` where the shop has no list of devices.
    pub activations: Option<u64>,
}

impl ShopLicense {
    pub fn new(shop: &'static dyn Shop, status: Status) -> Self {
        Self {
            shop,
            status,
            seller: String::new(),
            product: None,
            variant: None,
            labels: Vec::new(),
            plan: None,
            test: false,
            until: None,
            order: None,
            references: Vec::new(),
            handle: None,
            activation_limit: None,
            activations: None,
        }
    }

    /// Why it is no longer good at `now`, whosever it is: the explicit refusal of the shop, or its last day.
    pub fn ended(&self, now: UnixMs) -> Option<Code> {
        match self.status {
            Status::Disabled => Some(Code::LicenseDisabled),
            Status::Expired => Some(Code::LicenseExpired),
            Status::Refunded => Some(Code::LicenseRefunded),
            Status::Refused => Some(Code::LicenseInvalid),
            Status::Active | Status::Inactive => {
                self.until.is_some_and(|at| at <= now).then_some(Code::LicenseExpired)
            }
        }
    }

    pub fn order(&self) -> Option<&str> {
        self.order.as_deref()
    }

    /// All that a webhook may name it by.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.order.iter().chain(&self.references).map(String::as_str)
    }
}

impl Serialize for ShopLicense {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut stored = self.shop.store(self).ok_or_else(|| S::Error::custom("no licence"))?;
        stored["shop"] = self.shop.name().into();
        stored.serialize(to)
    }
}

impl<'de> Deserialize<'de> for ShopLicense {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let stored = Value::deserialize(from)?;
        let shop = stored["shop"].as_str().and_then(by_name);
        shop.and_then(|shop| shop.restore(stored)).ok_or_else(|| D::Error::custom("no licence"))
    }
}

/// The stored form of all shops but those that are older than it.
#[derive(Serialize, Deserialize)]
struct Common {
    status: Status,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    seller: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    product: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[serde(default)]
    test: bool,
    #[serde(default)]
    until: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    references: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    #[serde(default)]
    activation_limit: Option<u64>,
    #[serde(default)]
    activations: Option<u64>,
}

pub(super) fn to_common(license: &ShopLicense) -> Option<Value> {
    let license = license.clone();
    let common = Common {
        status: license.status,
        seller: license.seller,
        product: license.product,
        variant: license.variant,
        labels: license.labels,
        plan: license.plan,
        test: license.test,
        until: license.until,
        order: license.order,
        references: license.references,
        handle: license.handle,
        activation_limit: license.activation_limit,
        activations: license.activations,
    };
    serde_json::to_value(common).ok()
}

pub(super) fn from_common(shop: &str, stored: Value) -> Option<ShopLicense> {
    let common: Common = serde_json::from_value(stored).ok()?;
    Some(ShopLicense {
        shop: by_name(shop)?,
        status: common.status,
        seller: common.seller,
        product: common.product,
        variant: common.variant,
        labels: common.labels,
        plan: common.plan,
        test: common.test,
        until: common.until,
        order: common.order,
        references: common.references,
        handle: common.handle,
        activation_limit: common.activation_limit,
        activations: common.activations,
    })
}

/// What came back from a shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShopReply {
    License(Box<ShopLicense>),
    /// The shop does not know the key.
    NotFound,
    /// The key can be asked about only with a device that was activated.
    NeedsDevice,
    /// No answer, or none about the key. Never a refusal.
    Unknown(ShopError),
}

impl From<ShopLicense> for ShopReply {
    fn from(license: ShopLicense) -> Self {
        ShopReply::License(Box::new(license))
    }
}

impl ShopReply {
    /// An answer in no form that the shop documents.
    pub fn unreadable() -> Self {
        ShopReply::Unknown(ShopError::unreadable())
    }

    /// What every shop's answer means that is not about the key, by its status alone.
    pub fn of_status(response: &super::ShopResponse) -> Self {
        ShopReply::Unknown(match response.status {
            429 => ShopError::Limited { retry_after: response.retry_after },
            200..=299 => ShopError::unreadable(),
            status => ShopError::status(status),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShopError {
    #[error("it can't be reached: {0}")]
    Down(String),
    #[error("it limits the rate of calls (429)")]
    Limited { retry_after: Option<Duration> },
    /// A mistake of the configuration, which waiting does not repair.
    #[error("it does not accept the request: {0}")]
    Misconfigured(String),
}

impl ShopError {
    pub fn status(status: u16) -> Self {
        ShopError::Down(format!("it answered {status}"))
    }

    pub fn unreadable() -> Self {
        ShopError::Down("it answered something that is no licence answer".into())
    }

    /// The shop refuses the seller's API key, which says nothing about the buyer's key.
    pub fn credential(status: u16, field: &str) -> Self {
        ShopError::Misconfigured(format!(
            "it refuses our own credential ({status}); check `{field}` in licenses.sources"
        ))
    }
}

/// What a shop licence means under the live configuration.
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

    /// Whether the licence is not the seller's: what a mistake at the shop or in the configuration would
    /// report for every licence.
    pub fn is_foreign(&self) -> bool {
        matches!(self, LicenseVerdict::Invalid(Code::LicenseWrongProduct | Code::LicenseInvalid))
    }

    /// The verdict to report of two: a valid one, else the most specific refusal.
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

/// What a licence means for a source: seller, product, variant and test mode are always compared.
pub fn judge(license: &ShopLicense, source: &ShopSource, now: UnixMs) -> LicenseVerdict {
    let ended = license.ended(now);
    if source.seller.as_deref().is_some_and(|seller| seller != license.seller) {
        return LicenseVerdict::Invalid(Code::LicenseWrongProduct);
    }
    let is_ours = license.product.as_deref().is_none_or(|id| source.variants(id).is_some());
    // For a licence that ended, some shops leave out product or variant.
    let is_vague =
        license.plan.is_none() && (license.product.is_none() || license.variant.is_none());
    if let (Some(code), true, true) = (ended, is_ours, is_vague) {
        return LicenseVerdict::Invalid(code);
    }
    let Some(plan) = source.plan(license) else {
        return LicenseVerdict::Invalid(Code::LicenseWrongProduct);
    };
    if license.test && !source.test_mode {
        return LicenseVerdict::Invalid(Code::LicenseInvalid);
    }
    match ended {
        Some(code) => LicenseVerdict::Invalid(code),
        None => LicenseVerdict::Valid { plan: plan.clone(), until: license.until },
    }
}

/// A boolean member; `None` for any other value or a missing member: what a shop did not state must not be
/// read as a permission.
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

/// RFC 3339, as shops write moments.
pub fn moment(text: &str) -> Option<UnixMs> {
    let at = text.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    Some(UnixMs(at.max(0) as u64))
}

/// A timestamp, or `null` for none. `None` for any other value or a missing member.
pub(super) fn optional_moment(value: &Value) -> Option<Option<UnixMs>> {
    match value {
        Value::Null => Some(None),
        at => Some(Some(moment(at.as_str()?)?)),
    }
}

/// A count, or `null` for none. `None` where anything else stands there.
pub(super) fn optional_count(value: &Value) -> Option<Option<u64>> {
    match value {
        Value::Null => Some(None),
        count => Some(Some(count.as_u64()?)),
    }
}

/// A word of some length.
pub(super) fn word(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
