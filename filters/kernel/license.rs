//! The caller: the credential as it arrived, and the licence it belongs to.

use std::{fmt, net::IpAddr, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{period::UnixMs, plan::Plan, reject::Code};

/// HMAC-SHA256 under the pepper of the key, trimmed and upper-cased: the only form in which a
/// licence key is stored, logged or compared. All 256 bits count; never use a prefix as a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LicenseId(pub [u8; 32]);

impl LicenseId {
    /// 64 bits, enough to distinguish a few licences.
    pub fn short(self) -> u64 {
        self.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub fn to_hex(self) -> String {
        // Hexadecimal digits are always text.
        std::str::from_utf8(&hex_digits::<64>(&self.0)).unwrap_or_default().to_owned()
    }

    /// The digits of [`LicenseId::short`], as logs show them.
    pub fn short_hex(self) -> [u8; 16] {
        hex_digits(&self.0)
    }

    /// What [`LicenseId::to_hex`] wrote.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let mut id = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }
}

/// `N` digits of the first bytes.
fn hex_digits<const N: usize>(bytes: &[u8]) -> [u8; N] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [b'0'; N];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    digits
}

impl Serialize for LicenseId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for LicenseId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(from)?;
        Self::from_hex(&hex).ok_or_else(|| D::Error::custom("no licence id"))
    }
}

impl fmt::Debug for LicenseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.short_hex()).unwrap_or_default())
    }
}

/// The licence key as the app typed it. Never printed.
#[derive(Debug, Clone)]
pub struct Credential(SecretString);

impl Credential {
    pub fn new(key: impl Into<String>) -> Self {
        Self(SecretString::from(key.into()))
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

#[derive(Debug, Clone)]
pub struct License {
    /// What its use is counted under.
    pub id: LicenseId,
    /// The key that was sent. Another id than [`License::id`] where it replaced an earlier key and continues its
    /// licence.
    pub key: LicenseId,
    pub plan: Arc<Plan>,
    pub until: Option<UnixMs>,
}

/// One question to the sources: may this key come in?
#[derive(Debug, Clone, Copy)]
pub struct LicenseQuery<'a> {
    pub credential: &'a Credential,
    /// The app's address; `None` where a trusted proxy did not state it.
    pub address: Option<IpAddr>,
    /// `x-instance-id`: the device, for plans that count devices.
    pub instance: Option<&'a str>,
    pub now: UnixMs,
}

/// The result of checking a key. `Unknown` (shop down) is never `Invalid`.
#[derive(Debug, Clone)]
pub enum LicenseStatus {
    Valid(License),
    /// One of the `License*` codes.
    Invalid(Code),
    /// The licence is good, and this device is none of its own.
    OtherDevice(License),
    /// An operator moved the licence to another key; `say` is the message for the buyer.
    Replaced {
        say: Arc<str>,
    },
    /// No source could decide; `why` is for the operator.
    Unknown {
        why: &'static str,
    },
    /// This address tried too many keys; `retry_after` in seconds.
    TooMany {
        retry_after: u64,
    },
}
