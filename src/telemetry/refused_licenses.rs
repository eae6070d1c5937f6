//! Licences that were refused since the start of this gateway, for the page: the newest hundred, and a count of keys
//! that no source knows. In memory only; ids, never keys.

use std::sync::Arc;

use gatekeeper_filters::kernel::{Code, LicenseId, UnixMs};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Licences that are remembered; the one refused longest ago is forgotten first.
const MOST: usize = 100;

#[derive(Default)]
pub struct RefusedLicenses(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The newest last.
    known: Vec<RefusedLicense>,
    unknown: u64,
    last_unknown: Option<UnixMs>,
}

struct RefusedLicense {
    id: LicenseId,
    /// Empty where the licence gives none.
    plan: Arc<str>,
    /// Of the last refusal.
    code: Code,
    times: u64,
    last: UnixMs,
}

impl RefusedLicenses {
    /// Whether a refusal concerns the licence itself or what its plan allows, not the rate or the form of a
    /// request.
    pub fn is_about_it(code: Code) -> bool {
        matches!(code.status(), 402 | 403)
    }

    /// One refusal [about the licence](Self::is_about_it). Random keys must not displace the licences that are known, so
    /// those are only counted.
    pub fn note(&self, id: impl FnOnce() -> LicenseId, plan: &Arc<str>, code: Code, now: UnixMs) {
        if code == Code::LicenseInvalid {
            let mut inner = self.0.lock();
            inner.unknown += 1;
            inner.last_unknown = Some(now);
            return;
        }
        let id = id();
        let known = &mut self.0.lock().known;
        let place = known.iter().position(|one| one.id == id);
        let before = place.map(|place| known.remove(place)).map_or(0, |one| one.times);
        if known.len() == MOST {
            known.remove(0);
        }
        known.push(RefusedLicense { id, plan: plan.clone(), code, times: before + 1, last: now });
    }

    /// The newest first, and those that no source knows.
    pub fn to_json(&self) -> (Vec<Value>, Value) {
        let inner = self.0.lock();
        let known = inner.known.iter().rev().map(|one| {
            json!({
                "license": one.id.to_hex(), "plan": &*one.plan, "error": one.code.wire().1,
                "times": one.times, "last_refused": &*one.last.to_rfc3339(),
            })
        });
        let last = inner.last_unknown.map(|at| at.to_rfc3339().to_string());
        (known.collect(), json!({ "times": inner.unknown, "last_refused": last }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> LicenseId {
        LicenseId([number; 32])
    }

    #[test]
    fn the_newest_are_kept_and_keys_that_no_source_knows_displace_none() {
        let (refused, plan) = (RefusedLicenses::default(), Arc::from("pro"));
        for number in 0..120 {
            refused.note(|| id(number), &plan, Code::LicenseExpired, UnixMs(u64::from(number)));
        }
        refused.note(|| id(50), &plan, Code::QuotaExceeded, UnixMs(1000));
        for at in 0..500 {
            refused.note(|| unreachable!(), &plan, Code::LicenseInvalid, UnixMs(2000 + at));
        }
        let (known, unknown) = refused.to_json();
        assert_eq!(known.len(), MOST);
        assert_eq!(known[0]["license"], id(50).to_hex());
        assert_eq!((&known[0]["times"], &known[0]["error"]), (&json!(2), &json!("quota_exceeded")));
        assert_eq!(known[1]["license"], id(119).to_hex());
        assert!(!known.iter().any(|one| one["license"] == id(19).to_hex()));
        assert_eq!(unknown["times"], 500);
        assert_eq!(unknown["last_refused"], "1970-01-01T00:00:02Z");
    }

    #[test]
    fn what_is_about_the_request_is_not_about_the_licence() {
        let about = Code::ALL.into_iter().filter(|code| RefusedLicenses::is_about_it(*code));
        let names: Vec<&str> = about.map(|code| code.wire().1).collect();
        assert!(names.contains(&"license_refunded") && names.contains(&"quota_exceeded"));
        for other in ["rate_limited", "license_missing", "upstream_error", "invalid_request"] {
            assert!(!names.contains(&other), "{other}");
        }
    }
}
