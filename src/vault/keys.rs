//! The keys that a configuration names: what opens secrets, and what licences are hashed under.

use std::sync::Arc;

use secrecy::SecretString;

use super::kek::Kek;

/// The vault's keys, opened: 32 bytes each.
#[derive(Debug, Clone)]
pub struct VaultKeys {
    pub kek: Arc<Kek>,
    pub previous: Option<Arc<Kek>>,
    /// The configured pepper, if any (else it is derived from `kek`).
    pub pepper: Option<SecretString>,
}
