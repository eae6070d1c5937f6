//! `sealed:v1:<kek id>:<base64>`: AES-256-GCM, the 96-bit nonce first, then ciphertext and tag.
//!
//! The associated data binds version, provider, key id and KEK id, each with its length in front:
//! a sealed secret opens at its own place only, and no two places give the same bytes.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::kek::Kek;
use super::keys::VaultKeys;

const VERSION: &str = "v1";
const NONCE: usize = 12;
const TAG: usize = 16;
/// Longest secret, in bytes.
const MAX_SECRET: usize = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the secret is empty")]
    Empty,
    #[error("the secret is longer than 8192 bytes")]
    TooLong,
    #[error("the secret holds a space, a control character or something outside ASCII")]
    Unprintable,
    #[error("the operating system gives no random numbers")]
    NoRandom,
    #[error("encryption failed")]
    Failed,
}

/// Why a sealed secret does not open. No variant holds any part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    #[error(
        "not a sealed secret: expected `sealed:v1:<kek id>:<base64>`, as `gatekeeper seal` prints"
    )]
    Malformed,
    #[error("sealed by a newer version of gatekeeper")]
    Version,
    #[error("sealed under KEK {sealed}; the vault has {have}")]
    OtherKek { sealed: String, have: String },
    #[error("does not open: it was sealed for another provider or key id, or it was changed")]
    Refused,
}

/// The parts of a sealed secret.
pub struct Sealed<'a> {
    pub kek_id: &'a str,
    data: Vec<u8>,
}

impl fmt::Debug for Sealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("kek_id", &self.kek_id).finish_non_exhaustive()
    }
}

impl<'a> Sealed<'a> {
    /// # Errors
    /// [`UnsealError::Malformed`], [`UnsealError::Version`].
    pub fn parse(text: &'a str) -> Result<Self, UnsealError> {
        let rest = text.strip_prefix("sealed:").ok_or(UnsealError::Malformed)?;
        let (version, rest) = rest.split_once(':').ok_or(UnsealError::Malformed)?;
        if version != VERSION {
            let digits = version.strip_prefix('v').unwrap_or_default();
            let newer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            return Err(if newer { UnsealError::Version } else { UnsealError::Malformed });
        }
        let (kek_id, data) = rest.split_once(':').ok_or(UnsealError::Malformed)?;
        let hex =
            kek_id.len() == 16 && kek_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let data = STANDARD.decode(data).map_err(|_| UnsealError::Malformed)?;
        if !hex || data.len() <= NONCE + TAG {
            return Err(UnsealError::Malformed);
        }
        Ok(Self { kek_id, data })
    }
}

fn associated(provider: &str, key_id: &str, kek_id: &str) -> Vec<u8> {
    let mut out = b"gatekeeper sealed secret".to_vec();
    for part in [VERSION, provider, key_id, kek_id] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// What can stand in a request header, and so what a secret may be.
///
/// # Errors
/// [`SealError::Empty`], [`SealError::TooLong`], [`SealError::Unprintable`].
pub fn check_secret(secret: &str) -> Result<(), SealError> {
    match secret.len() {
        0 => Err(SealError::Empty),
        length if length > MAX_SECRET => Err(SealError::TooLong),
        _ if !secret.bytes().all(|b| b.is_ascii_graphic()) => Err(SealError::Unprintable),
        _ => Ok(()),
    }
}

/// Seals `secret` for one key of one provider, under a nonce from the operating system.
///
/// # Errors
/// See [`SealError`].
pub fn seal(
    kek: &Kek,
    provider: &str,
    key_id: &str,
    secret: &SecretString,
) -> Result<String, SealError> {
    let secret = secret.expose_secret();
    check_secret(secret)?;
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|_| SealError::NoRandom)?;
    let aad = associated(provider, key_id, kek.id());
    let payload = Payload { msg: secret.as_bytes(), aad: &aad };
    let text = Aes256Gcm::new(kek.key().into())
        .encrypt(&nonce.into(), payload)
        .map_err(|_| SealError::Failed)?;
    let data = [&nonce[..], &text].concat();
    Ok(format!("sealed:{VERSION}:{}:{}", kek.id(), STANDARD.encode(data)))
}

/// Opens under whichever of the vault's keys sealed it.
///
/// # Errors
/// See [`UnsealError`].
pub fn open(
    vault: &VaultKeys,
    provider: &str,
    key_id: &str,
    sealed: &str,
) -> Result<SecretString, UnsealError> {
    let keks: Vec<&Kek> = [Some(&vault.kek), vault.previous.as_ref()]
        .into_iter()
        .flatten()
        .map(AsRef::as_ref)
        .collect();
    open_with(&keks, provider, key_id, sealed)
}

/// Opens under whichever of `keks` sealed it.
///
/// # Errors
/// See [`UnsealError`].
pub fn open_with(
    keks: &[&Kek],
    provider: &str,
    key_id: &str,
    sealed: &str,
) -> Result<SecretString, UnsealError> {
    let sealed = Sealed::parse(sealed)?;
    let Some(kek) = keks.iter().find(|kek| kek.id() == sealed.kek_id) else {
        let have = keks.iter().map(|kek| kek.id()).collect::<Vec<_>>().join(" and ");
        return Err(UnsealError::OtherKek { sealed: sealed.kek_id.into(), have });
    };
    let (nonce, text) = sealed.data.split_first_chunk::<NONCE>().ok_or(UnsealError::Malformed)?;
    let aad = associated(provider, key_id, kek.id());
    let plain = Aes256Gcm::new(kek.key().into())
        .decrypt(nonce.into(), Payload { msg: text, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| UnsealError::Refused)?;
    let plain = std::str::from_utf8(&plain).map_err(|_| UnsealError::Refused)?;
    Ok(SecretString::from(plain.to_owned()))
}
