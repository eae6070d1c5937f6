//! Provider keys at rest: sealed in the YAML file under a key that is never in it.
//!
//! `kek` is the key-encrypting key, `seal` the sealed form, `pepper` what licences are hashed
//! under (`keyed_hash`). Buffers of ours that held a secret are wiped;
//! what HTTP libraries copy into their own buffers is not.

pub mod kek;
mod keyed_hash;
pub mod keys;
pub mod pepper;
pub mod seal;

pub use self::{
    kek::{Kek, KekError, KekSource},
    keyed_hash::KeyedHash,
    keys::VaultKeys,
    pepper::{Pepper, PepperError, pepper},
    seal::{SealError, Sealed, UnsealError, open, open_with, seal},
};

#[cfg(test)]
mod tests;
