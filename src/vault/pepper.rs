//! The pepper: the key under which licence keys are hashed. With another pepper every licence is a new one
//! without usage.
//!
//! Without `vault.pepper` it is derived from a KEK, so gateways with one KEK agree without talking
//! to each other: from `previous` where there is one, else from `kek`. While an
//! operator changes KEKs, `previous` is the one that `kek` was until now; deriving from it gives
//! the pepper that was in use before, on gateways that already have the new file and on those that
//! do not. `rewrap` then writes that pepper into the file, so it survives when `previous` is removed.
//! When `previous` is removed without `rewrap`, the check value in the store stops the start, so usage is never
//! lost silently.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::kek::{Kek, decode};
use super::keys::VaultKeys;

const LABEL: &[u8] = b"licence-pepper-v1";
/// The place a sealed pepper is bound to; `vault` is no name for a provider.
pub const PLACE: (&str, &str) = ("vault", "pepper");

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pepper is not 32 bytes in base64 (44 characters, the last is `=`)")]
pub struct PepperError;

/// 32 bytes, wiped when dropped, never printed.
#[derive(Clone)]
pub struct Pepper(Zeroizing<[u8; 32]>);

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(***)")
    }
}

impl Pepper {
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// # Errors
    /// When it is not 32 bytes in base64.
    pub fn decode(text: &SecretString) -> Result<Self, PepperError> {
        decode(text.expose_secret()).map(Self).ok_or(PepperError)
    }

    /// As it stands in a file, before sealing.
    pub(crate) fn encode(&self) -> SecretString {
        SecretString::from(STANDARD.encode(*self.0))
    }

    pub(crate) fn derived(kek: &Kek, previous: Option<&Kek>) -> Self {
        Self(previous.unwrap_or(kek).derive(LABEL))
    }
}

/// The pepper in use under this vault.
///
/// # Errors
/// When the configured one is malformed; a loaded configuration never is.
pub fn pepper(vault: &VaultKeys) -> Result<Pepper, PepperError> {
    match &vault.pepper {
        Some(text) => Pepper::decode(text),
        None => Ok(Pepper::derived(&vault.kek, vault.previous.as_deref())),
    }
}
