//! Licences that prove themselves: tokens signed with a key whose public half stands in the configuration. They are
//! verified in the process, and no call is made.
//!
//! ```text
//! jwt     HEADER.CLAIMS.SIGNATURE            RFC 7519, Ed25519 (RFC 8037)
//! keygen  key/DATASET.SIGNATURE              <https://keygen.sh/docs/api/cryptography/#cryptographic-keys>
//! ```
//! The algorithm is that of the configured key, never the one that a token names; any `crit` is refused, as
//! is a `kid` that is not configured, and a duplicate member.

use std::{collections::HashSet, sync::Arc};

use base64::{
    Engine,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use gatekeeper_filters::kernel::{Code, Plan, UnixMs, json::Document};
use serde_json::Value;

use super::{license::moment, signature::ed25519};

/// Metric label and field of the YAML.
pub const NAME: &str = "signed";
/// Longest token that is looked at, in bytes.
pub const LONGEST: usize = 2048;
/// How far clocks may be apart, in milliseconds.
const SKEW: u64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Jwt,
    Keygen,
}

/// One source of signed licences.
#[derive(Debug, Clone)]
pub struct SignedSource {
    pub format: Format,
    /// Ed25519 public keys by `kid`.
    pub keys: Vec<(Arc<str>, [u8; 32])>,
    pub audience: Arc<str>,
    /// The claim that identifies the licence.
    pub id: Arc<str>,
    /// The claim that selects the plan, and the plans of its values.
    pub plan: Arc<str>,
    pub plans: Vec<(Arc<str>, Arc<Plan>)>,
    /// Tokens without an end are taken.
    pub perpetual: bool,
    /// Ids and `jti` that are refused.
    pub revoked: HashSet<String>,
}

/// A token whose signature is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedLicense {
    pub id: String,
    pub plan: Arc<Plan>,
    pub until: Option<UnixMs>,
}

/// Whether a key could be such a token.
pub fn has_shape(format: Format, key: &str) -> bool {
    if key.len() > LONGEST {
        return false;
    }
    let rest = match format {
        Format::Jwt if key.split('.').count() == 3 => key,
        Format::Keygen => match key.strip_prefix("key/") {
            Some(rest) if rest.split('.').count() == 2 => rest,
            _ => return false,
        },
        Format::Jwt => return false,
    };
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
    rest.split('.').all(|part| !part.is_empty() && part.bytes().all(is_letter))
}

/// What a token is worth at `now`.
///
/// # Errors
/// `LicenseInvalid` without a right signature, else what is wrong with what was signed.
pub fn verify(source: &SignedSource, token: &str, now: UnixMs) -> Result<SignedLicense, Code> {
    let claims = signed_claims(source, token).ok_or(Code::LicenseInvalid)?;
    judge(source, &claims, now)
}

/// The claims of a token with a right signature.
fn signed_claims(source: &SignedSource, token: &str) -> Option<Value> {
    if !has_shape(source.format, token) {
        return None;
    }
    let (message, signature) = token.rsplit_once('.')?;
    let signature = decode(signature)?;
    let (kid, payload) = match source.format {
        Format::Jwt => {
            let (header, payload) = message.split_once('.')?;
            let header = strict(decode(header)?)?;
            // The one algorithm of an Ed25519 key, in its name of RFC 8037 and the newer one of RFC 9864.
            let is_ours = matches!(header["alg"].as_str(), Some("EdDSA" | "Ed25519"));
            if !is_ours || header.get("crit").is_some() {
                return None;
            }
            let kid = match header.get("kid") {
                None => None,
                Some(kid) => Some(kid.as_str()?.to_owned()),
            };
            (kid, payload)
        }
        Format::Keygen => (None, message.strip_prefix("key/")?),
    };
    let fits = |(name, _): &&(Arc<str>, [u8; 32])| kid.as_deref().is_none_or(|kid| kid == &**name);
    let mut keys = source.keys.iter().filter(fits);
    keys.any(|(_, key)| ed25519(key, message.as_bytes(), &signature)).then_some(())?;
    strict(decode(payload)?)
}

fn judge(source: &SignedSource, claims: &Value, now: UnixMs) -> Result<SignedLicense, Code> {
    let invalid = Code::LicenseInvalid;
    let (audience, expiry) = match source.format {
        Format::Jwt => (claim(claims, "aud"), claim(claims, "exp")),
        Format::Keygen => (claim(claims, "product.id"), claim(claims, "license.expiry")),
    };
    let is_for_us = match audience {
        Some(Value::String(one)) => *one == *source.audience,
        Some(Value::Array(many)) => many.iter().any(|one| *one == *source.audience),
        _ => false,
    };
    if !is_for_us {
        return Err(Code::LicenseWrongProduct);
    }
    let id = claim(claims, &source.id).and_then(Value::as_str).filter(|id| !id.is_empty());
    let id = id.ok_or(invalid)?;
    let jti = claim(claims, "jti").and_then(Value::as_str);
    if std::iter::once(id).chain(jti).any(|name| source.revoked.contains(name)) {
        return Err(Code::LicenseDisabled);
    }
    let until = match expiry {
        None | Some(Value::Null) if source.perpetual => None,
        None | Some(Value::Null) => return Err(invalid),
        Some(at) => Some(date(source.format, at).ok_or(invalid)?),
    };
    if until.is_some_and(|until| until.0.saturating_add(SKEW) <= now.0) {
        return Err(Code::LicenseExpired);
    }
    if let Some(start) = claim(claims, "nbf") {
        let start = date(Format::Jwt, start).ok_or(invalid)?;
        if start.0 > now.0.saturating_add(SKEW) {
            return Err(invalid);
        }
    }
    let word = claim(claims, &source.plan).and_then(Value::as_str);
    let plan = source.plans.iter().find(|(name, _)| Some(&**name) == word);
    let (_, plan) = plan.ok_or(Code::LicenseWrongProduct)?;
    Ok(SignedLicense { id: id.to_owned(), plan: plan.clone(), until })
}

/// A claim by its name, or by its path through objects (`license.id`).
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |within, part| within.get(part)))
}

/// Seconds since 1970, whole or not (RFC 7519, `NumericDate`); Keygen writes RFC 3339.
fn date(format: Format, value: &Value) -> Option<UnixMs> {
    match (format, value.as_f64()) {
        (Format::Keygen, _) => moment(value.as_str()?),
        (Format::Jwt, Some(seconds)) if (0.0..=1e12).contains(&seconds) => {
            Some(UnixMs((seconds * 1000.0) as u64))
        }
        _ => None,
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    match text.ends_with('=') {
        true => URL_SAFE.decode(text).ok(),
        false => URL_SAFE_NO_PAD.decode(text).ok(),
    }
}

/// An object without a member that stands twice: two readers could understand it in two ways.
fn strict(text: Vec<u8>) -> Option<Value> {
    let text = Bytes::from(text);
    Document::parse(text.clone()).ok()?;
    serde_json::from_slice(&text).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests;
