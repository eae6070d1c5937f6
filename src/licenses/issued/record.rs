//! What is kept of a licence of our own, of its later keys, and of the orders that made it.

use std::time::Duration;

use gatekeeper_filters::kernel::{Code, LicenseId, UnixMs};
use serde::{Deserialize, Serialize};

/// How long it is known of a forgotten licence that there was one.
const FORGOTTEN: Duration = Duration::from_secs(400 * 86_400);

/// Of two records of one id the one of the higher version holds; of one version, the greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IssuedRecord {
    /// The time of the change, and larger than that of the change before.
    pub version: u64,
    pub is: IssuedKind,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "records are boxed, and most are licences")]
pub enum IssuedKind {
    License(IssuedLicense),
    /// A later key of a licence, refused from `until` on.
    Key {
        license: LicenseId,
        until: Option<UnixMs>,
    },
    /// What an order made.
    Order {
        licenses: Vec<LicenseId>,
    },
    /// What was read of Stripe's events.
    Sweep(SweepState),
    /// Nothing is left of it but that it was there, so that it does not come back.
    Forgotten {
        kind: String,
        at: UnixMs,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssuedStatus {
    #[default]
    Active,
    Disabled,
    Expired,
    Refunded,
}

impl IssuedStatus {
    pub fn name(self) -> &'static str {
        match self {
            IssuedStatus::Active => "active",
            IssuedStatus::Disabled => "disabled",
            IssuedStatus::Expired => "expired",
            IssuedStatus::Refunded => "refunded",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        use IssuedStatus::{Active, Disabled, Expired, Refunded};
        [Active, Disabled, Expired, Refunded].into_iter().find(|status| status.name() == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IssuedLicense {
    pub status: IssuedStatus,
    /// The plan's name; that of `price` comes first.
    pub plan: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    pub until: Option<UnixMs>,
    pub created: UnixMs,
    /// `issue`, `stripe`, `import`, or the shop that it was adopted from.
    pub origin: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Paid in test mode.
    #[serde(skip_serializing_if = "is_false")]
    pub test: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_devices: Option<u64>,
    /// The order that made it, hashed.
    pub order: String,
    /// The key whose hash is the licence's id is refused from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_key_until: Option<UnixMs>,
    /// Records of its later keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub later_keys: Vec<LicenseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedKey>,
    /// One-time codes that stand for the key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<ClaimCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripe: Option<StripeRefs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shop: Option<ImportedIds>,
}

/// The key, under the KEK, until it was shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SealedKey {
    pub text: String,
    /// The hashed order that may open it.
    pub order: String,
    pub made: UnixMs,
    /// When it was first shown.
    pub shown: Option<UnixMs>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimCode {
    /// Hashed.
    pub code: String,
    pub until: UnixMs,
}

/// Ids of Stripe's objects; none of them is secret or identifies the buyer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StripeRefs {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// Charges that were given back or are disputed, with the second of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stops: Vec<(String, u64)>,
    /// When the paid period began, in seconds.
    pub period_start: u64,
    /// The end that Stripe last gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMs>,
    /// Its status at Stripe, without suspensions.
    pub base: IssuedStatus,
}

/// What another shop called it, as apps that were written for that shop read it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportedIds {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
}

/// Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct SweepState {
    /// Everything until then was read.
    pub since: u64,
    /// A look that had no end went back to here.
    pub gap: Option<u64>,
    /// The newest event of that look.
    pub newest: u64,
    /// When was last looked, in milliseconds.
    pub at: UnixMs,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl IssuedRecord {
    /// The record that follows `before`.
    pub fn next(before: Option<&IssuedRecord>, is: IssuedKind, now: UnixMs) -> Self {
        let last = before.map_or(0, |before| before.version);
        Self { version: now.0.max(last + 1), is }
    }

    /// Nothing else is to be kept beside it.
    pub fn is_forgotten(&self) -> bool {
        matches!(self.is, IssuedKind::Forgotten { .. })
    }

    /// How long it is to be kept from `now` on; zero for what was forgotten long enough ago.
    pub fn kept_for(&self, now: UnixMs) -> Option<Duration> {
        match &self.is {
            IssuedKind::Forgotten { at, .. } => {
                Some(FORGOTTEN.saturating_sub(Duration::from_millis(now.0.saturating_sub(at.0))))
            }
            _ => None,
        }
    }

    pub fn license(&self) -> Option<&IssuedLicense> {
        match &self.is {
            IssuedKind::License(license) => Some(license),
            _ => None,
        }
    }
}

impl IssuedLicense {
    /// Why it is not valid at `now`, whatever its plan.
    pub fn ended(&self, now: UnixMs) -> Option<Code> {
        match self.status {
            IssuedStatus::Refunded => Some(Code::LicenseRefunded),
            IssuedStatus::Disabled => Some(Code::LicenseDisabled),
            IssuedStatus::Expired => Some(Code::LicenseExpired),
            IssuedStatus::Active => {
                self.until.is_some_and(|until| until <= now).then_some(Code::LicenseExpired)
            }
        }
    }

    /// The state in words, as lists have it.
    pub fn state(&self, now: UnixMs) -> &'static str {
        match self.ended(now) {
            Some(code) => code.wire().1.trim_start_matches("license_"),
            None => "active",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_record_holds_whatever_the_order() {
        let one = IssuedRecord::next(None, IssuedKind::Order { licenses: Vec::new() }, UnixMs(5));
        let key = IssuedKind::Key { license: LicenseId([1; 32]), until: None };
        let two = IssuedRecord::next(Some(&one), key, UnixMs(3));
        assert_eq!(two.version, 6, "a clock that went back makes no older record");
        assert!(two > one && Some(two.clone()).max(Some(one)) == Some(two));
    }

    #[test]
    fn what_was_forgotten_is_known_for_400_days() {
        let day = |days: u64| UnixMs(1_800_000_000_000 + days * 86_400_000);
        let forgotten = IssuedKind::Forgotten { kind: "license".into(), at: day(0) };
        let record = IssuedRecord::next(None, forgotten, day(0));
        assert_eq!(record.kept_for(day(399)), Some(Duration::from_secs(86_400)));
        assert_eq!(record.kept_for(day(400)), Some(Duration::ZERO));
        let order = IssuedKind::Order { licenses: Vec::new() };
        assert_eq!(IssuedRecord::next(None, order, day(0)).kept_for(day(500)), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let license = IssuedLicense {
            plan: "pro".into(),
            until: Some(UnixMs(9)),
            stripe: Some(StripeRefs { stops: vec![("ch_1".into(), 3)], ..StripeRefs::default() }),
            ..IssuedLicense::default()
        };
        let record = IssuedRecord::next(None, IssuedKind::License(license), UnixMs(1));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<IssuedRecord>(&text).unwrap(), record, "{text}");
    }
}
