//! Orders about licences of our own, as JSON objects. Unknown members are refused.

use std::time::Duration;

use gatekeeper_filters::kernel::{Credential, LicenseId, UnixMs};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    license_admin::{ApiError, random_id},
    licenses::{issued::IssuedBook, revocation::LicenseRef},
};

/// Licences of one order.
const MOST: usize = 1_000;
const LONGEST_NOTE: usize = 200;
const LONGEST_ID: usize = 64;
/// The longest that a replaced key serves on, and a licence runs longer: ten years.
const LONGEST_SPAN: Duration = Duration::from_secs(3_653 * 86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueOrder {
    pub plan: String,
    pub until: Option<String>,
    pub count: Option<usize>,
    pub max_devices: Option<u64>,
    pub note: Option<String>,
    pub id: Option<String>,
}

/// What the texts of an order mean.
pub struct CheckedIssue {
    pub count: usize,
    pub until: Option<UnixMs>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct ListOrder {
    pub plan: Option<String>,
    pub state: Option<String>,
    pub offset: usize,
    pub limit: Option<usize>,
}

/// Which licence.
#[derive(Deserialize)]
pub struct Subject {
    key: Option<String>,
    license: Option<String>,
}

/// The id and the note of an operator's command.
#[derive(Deserialize)]
pub struct Order {
    id: Option<String>,
    note: Option<String>,
}

/// `flatten` and `deny_unknown_fields` exclude each other in serde, so members are listed.
macro_rules! order {
    ($(#[$doc:meta])* $name:ident { $($member:ident),* }) => {
        $(#[$doc])*
        pub struct $name {
            pub subject: Subject,
            pub order: Order,
            $(pub $member: Option<String>,)*
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Members {
                    key: Option<String>,
                    license: Option<String>,
                    id: Option<String>,
                    note: Option<String>,
                    $($member: Option<String>,)*
                }
                let read = Members::deserialize(from)?;
                Ok(Self {
                    subject: Subject { key: read.key, license: read.license },
                    order: Order { id: read.id, note: read.note },
                    $($member: read.$member,)*
                })
            }
        }
    };
}

order!(RotateArgs { grace });
order!(ExtendArgs { until, by });
order!(ExpireArgs {});

/// # Errors
/// 400 with the cause; no key is repeated.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("The body is not such an order: {error}.")))
}

impl Subject {
    pub fn reference(&self) -> Result<LicenseRef, ApiError> {
        match (&self.key, &self.license) {
            (Some(key), None) if !key.trim().is_empty() => {
                Ok(LicenseRef::Key(Credential::new(key.trim())))
            }
            (None, Some(hex)) => LicenseId::from_hex(hex)
                .map(LicenseRef::Id)
                .ok_or_else(|| ApiError::invalid("license: expected 64 hex digits")),
            _ => Err(ApiError::invalid("name one licence: its `key`, or its id as `license`")),
        }
    }
}

impl Order {
    /// Id and note.
    pub fn parts(&self) -> Result<(String, String), ApiError> {
        check_note(self.note.as_deref())?;
        check_id(self.id.as_deref())?;
        let id = self.id.clone().map_or_else(random_id, Ok)?;
        Ok((id, self.note.clone().unwrap_or_default()))
    }
}

impl IssueOrder {
    pub fn check(&self, issued: &IssuedBook) -> Result<CheckedIssue, ApiError> {
        if !issued.has_plan(&self.plan) {
            let names: Vec<&str> = issued.source.plans.iter().map(|plan| &*plan.name).collect();
            let message = format!("plan: there is no such plan; there are {}", names.join(", "));
            return Err(ApiError::invalid(message));
        }
        let count = self.count.unwrap_or(1);
        if !(1..=MOST).contains(&count) {
            return Err(ApiError::invalid(format!("count: expected 1 to {MOST}")));
        }
        check_note(self.note.as_deref())?;
        check_id(self.id.as_deref())?;
        let until = self.until.as_deref().map(moment).transpose()?;
        if until.is_some_and(|until| until <= UnixMs::now()) {
            return Err(ApiError::invalid("until: this day is over"));
        }
        Ok(CheckedIssue { count, until })
    }
}

impl ExtendArgs {
    /// The new end of a licence that ends at `now`, if it does.
    pub fn until(&self, current: Option<UnixMs>) -> Result<UnixMs, ApiError> {
        let now = UnixMs::now();
        match (&self.until, &self.by) {
            (Some(until), None) => moment(until),
            (None, Some(by)) => Ok(current.unwrap_or(now).max(now).plus(span("by", by)?)),
            _ => Err(ApiError::invalid("name the new end: `until` (a date), or `by` (like 30d)")),
        }
    }
}

pub fn grace(text: Option<&str>) -> Result<Duration, ApiError> {
    text.map_or(Ok(Duration::ZERO), |text| span("grace", text))
}

/// `7d`, `12h`, `30m`, `90s`.
fn span(name: &str, text: &str) -> Result<Duration, ApiError> {
    let wrong = || {
        ApiError::invalid(format!("{name}: expected a duration like 7d or 12h, ten years at most"))
    };
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let span = Duration::from_secs(number.saturating_mul(seconds));
    if span > LONGEST_SPAN { Err(wrong()) } else { Ok(span) }
}

/// A day (UTC, to its end) or an RFC 3339 timestamp.
pub fn moment(text: &str) -> Result<UnixMs, ApiError> {
    moment_from(text, (23, 59, 59))
}

/// A day (UTC, from its beginning) or an RFC 3339 timestamp.
pub fn beginning(text: &str) -> Result<UnixMs, ApiError> {
    moment_from(text, (0, 0, 0))
}

fn moment_from(text: &str, (hour, minute, second): (i8, i8, i8)) -> Result<UnixMs, ApiError> {
    let of_day = || {
        let day: jiff::civil::Date = text.parse().ok()?;
        jiff::tz::Offset::UTC.to_timestamp(day.at(hour, minute, second, 0)).ok()
    };
    let at = match text.parse::<jiff::Timestamp>() {
        Ok(at) => Some(at),
        Err(_) => of_day(),
    };
    let ms = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    ms.map(UnixMs)
        .ok_or_else(|| ApiError::invalid("expected a date like 2027-01-31 or 2027-01-31T12:00:00Z"))
}

fn check_note(note: Option<&str>) -> Result<(), ApiError> {
    let is_wrong =
        |note: &str| note.chars().count() > LONGEST_NOTE || note.chars().any(char::is_control);
    match note.is_some_and(is_wrong) {
        true => Err(ApiError::invalid(format!(
            "note: expected at most {LONGEST_NOTE} characters, none of control"
        ))),
        false => Ok(()),
    }
}

fn check_id(id: Option<&str>) -> Result<(), ApiError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let is_wrong = |id: &str| id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(fits);
    match id.is_some_and(is_wrong) {
        true => Err(ApiError::invalid(format!(
            "id: expected 1 to {LONGEST_ID} of A-Z, a-z, 0-9, _ and -"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_to_its_end() {
        assert_eq!(&*moment("2027-01-31").unwrap().to_rfc3339(), "2027-01-31T23:59:59Z");
        assert_eq!(&*moment("2027-01-31T12:00:00Z").unwrap().to_rfc3339(), "2027-01-31T12:00:00Z");
        for wrong in ["", "tomorrow", "2027-13-01", "31.1.2027", "1969-01-01"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(span("by", "7d").unwrap(), Duration::from_secs(7 * 86_400));
        for wrong in ["", "d", "7", "7w", "-1d", "9999999d", "7 d"] {
            assert!(span("by", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_members_are_refused() {
        assert!(read::<RotateArgs>(br#"{"key":"K","grace":"7d"}"#).is_ok());
        assert!(read::<RotateArgs>(br#"{"key":"K","until":"7d"}"#).is_err());
        assert!(read::<ExtendArgs>(br#"{"key":"K","key":"L"}"#).is_err());
        assert!(read::<ListOrder>(b"").is_ok());
    }
}
