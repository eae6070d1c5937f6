//! Who is asking: the credential as it came, and the licence it stands for.

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};

use super::{period::UnixMs, plan::Plan, reject::Code};

/// HMAC-SHA256 under the pepper of the key, trimmed and upper-cased: the only form in which a
/// licence key is stored, logged or compared. All 256 bits count; never use a prefix as a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LicenseId(pub [u8; 32]);

impl LicenseId {
    pub fn to_hex(self) -> String {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let digits = |byte: u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        self.0.into_iter().flat_map(digits).collect()
    }
}

impl fmt::Debug for LicenseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex()[..12])
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
    pub id: LicenseId,
    pub plan: Arc<Plan>,
    pub until: Option<UnixMs>,
}

/// What a source says of a key. `Unknown` (shop down) is never `Invalid`.
#[derive(Debug, Clone)]
pub enum Standing {
    Valid(License),
    /// `code` is one of the `License*` codes.
    Invalid(Code),
    Unknown,
}
