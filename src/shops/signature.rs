//! Signatures of webhooks. All comparisons take constant time.

use base64::{Engine, engine::general_purpose::STANDARD};
use gatekeeper_filters::kernel::UnixMs;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::Scheme;

/// How far the time stamp of a signature may be from our clock, in milliseconds
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
const TOLERANCE: u64 = 300_000;
/// Longest `webhook-id`, and most signatures in one header, while a secret is being replaced.
const LONGEST_ID: usize = 256;
const MOST: usize = 8;
/// Bytes of a key: fewer could be found by trying.
const SHORTEST_KEY: usize = 16;

/// Why a webhook is not taken before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// The signature is missing, or is none.
    Unsigned,
    /// It was signed too long ago, or in the future.
    Skewed,
}

/// How the head of a webhook carries its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    Hex([u8; 32]),
    Standard {
        id: String,
        at: String,
        signatures: Vec<[u8; 32]>,
    },
    /// What was signed, the digest of the body that is part of it, and the signature.
    Ed25519 {
        message: String,
        digest: [u8; 32],
        signature: [u8; 64],
    },
}

/// # Errors
/// There is no signature of that scheme in the head, or it is too old.
pub fn of_head(scheme: Scheme, headers: &HeaderMap, now: UnixMs) -> Result<Signature, HeadError> {
    let text = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().and_then(|value| value.to_str().ok());
        first.filter(|_| values.next().is_none()).ok_or(HeadError::Unsigned)
    };
    match scheme {
        Scheme::Path => Err(HeadError::Unsigned),
        Scheme::Hex(header) => Ok(Signature::Hex(unhex(text(header)?).ok_or(HeadError::Unsigned)?)),
        Scheme::Ed25519(header) => http_signature(text(header)?, &text, now),
        Scheme::Standard => {
            let (id, at, list) =
                (text("webhook-id")?, text("webhook-timestamp")?, text("webhook-signature")?);
            if id.is_empty() || id.len() > LONGEST_ID {
                return Err(HeadError::Unsigned);
            }
            let seconds: u64 = at.parse().map_err(|_| HeadError::Unsigned)?;
            let signatures: Vec<[u8; 32]> = list
                .split(' ')
                .filter_map(|one| one.strip_prefix("v1,"))
                .filter_map(|one| STANDARD.decode(one).ok()?.try_into().ok())
                .take(MOST)
                .collect();
            if signatures.is_empty() {
                return Err(HeadError::Unsigned);
            }
            if seconds.saturating_mul(1000).abs_diff(now.0) > TOLERANCE {
                return Err(HeadError::Skewed);
            }
            Ok(Signature::Standard { id: id.to_owned(), at: at.to_owned(), signatures })
        }
    }
}

/// `keyid="...", algorithm="ed25519", signature="...", headers="(request-target) host date digest"`.
fn http_signature<'a>(
    header: &str,
    text: &impl Fn(&str) -> Result<&'a str, HeadError>,
    now: UnixMs,
) -> Result<Signature, HeadError> {
    let member = |name: &str| {
        let mut members = header.split(',').filter_map(|part| part.trim().split_once('='));
        members.find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"'))
    };
    let covers = member("headers") == Some("(request-target) host date digest");
    let is_known = member("algorithm").is_some_and(|name| name.eq_ignore_ascii_case("ed25519"));
    let signature =
        member("signature").and_then(|text| STANDARD.decode(text).ok()?.try_into().ok());
    let (Some(signature), true, true) = (signature, covers, is_known) else {
        return Err(HeadError::Unsigned);
    };
    let (host, date, digest) = (text("host")?, text("date")?, text("digest")?);
    let decoded = digest
        .split_once('=')
        .filter(|(kind, _)| kind.eq_ignore_ascii_case("sha-256"))
        .and_then(|(_, text)| STANDARD.decode(text).ok()?.try_into().ok());
    let at = jiff::fmt::rfc2822::parse(date).map_err(|_| HeadError::Unsigned)?;
    let at = at.timestamp().as_millisecond().max(0) as u64;
    if at.abs_diff(now.0) > TOLERANCE {
        return Err(HeadError::Skewed);
    }
    let message = format!(
        "(request-target): post /webhooks/keygen\nhost: {host}\ndate: {date}\ndigest: {digest}"
    );
    let digest = decoded.ok_or(HeadError::Unsigned)?;
    Ok(Signature::Ed25519 { message, digest, signature })
}

impl Signature {
    /// Whether `body` was signed with `secret`.
    pub fn is_of(&self, secret: &str, body: &[u8]) -> bool {
        match self {
            Signature::Hex(signature) => mac(secret.as_bytes(), &[body])
                .is_some_and(|mac| mac.verify_slice(signature).is_ok()),
            Signature::Standard { id, at, signatures } => {
                let parts = [id.as_bytes(), b".", at.as_bytes(), b".", body];
                keys(secret).iter().any(|key| {
                    signatures.iter().fold(false, |signed, signature| {
                        let is =
                            mac(key, &parts).is_some_and(|mac| mac.verify_slice(signature).is_ok());
                        signed | is
                    })
                })
            }
            Signature::Ed25519 { message, digest, signature } => {
                let key = unhex(secret.trim());
                let is_body = <[u8; 32]>::from(Sha256::digest(body)) == *digest;
                is_body && key.is_some_and(|key| ed25519(&key, message.as_bytes(), signature))
            }
        }
    }

    /// Identifies the event: a repeated one is processed once.
    pub fn event_id(&self, body: &[u8]) -> [u8; 32] {
        match self {
            Signature::Hex(_) => Sha256::digest(body).into(),
            Signature::Standard { id, .. } => Sha256::digest(id.as_bytes()).into(),
            Signature::Ed25519 { signature, .. } => Sha256::digest(signature).into(),
        }
    }
}

/// What a secret may stand for. Standard Webhooks write base64 of the bytes, mostly after `whsec_`; Polar signs with
/// the bytes of the text as it stands, whatever it begins with.
fn keys(secret: &str) -> Vec<Vec<u8>> {
    let text = secret.strip_prefix("whsec_").unwrap_or(secret);
    let decoded = STANDARD.decode(text).ok().filter(|key| key.len() >= SHORTEST_KEY);
    std::iter::once(secret.as_bytes().to_vec()).chain(decoded).collect()
}

/// Whether `signature` is that of `message` under a public key.
pub fn ed25519(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
    key.verify(message, signature).is_ok()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(mac)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    gatekeeper_filters::kernel::LicenseId::from_hex(text).map(|bytes| bytes.0)
}

#[cfg(test)]
mod tests;
