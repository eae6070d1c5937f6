//! A licence that moves to another key, as when its seller moves to another shop.
//!
//! The new key continues the licence of the old one: what was used, what an operator gave and whether it is
//! revoked stay under the id of the first key, and nothing of it is copied, so that requests which run meanwhile
//! count where they always did. The records of both keys only say so:
//!
//! ```text
//! old key   replaced by NEW, taken until a day or refused with a sentence
//! new key   continues OLD (or what OLD continued), and has its devices
//! ```
//! HMACs alone are kept. A licence can be named by the id that its new shop has for it, before its key was ever
//! seen here: that id's own record continues OLD until a key of it comes.

use std::sync::Arc;

use gatekeeper_filters::kernel::{LicenseId, LicenseStatus, UnixMs};
use serde::{Deserialize, Serialize};

/// An operator's word about one key. Of two the later one holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyMove {
    pub at: UnixMs,
    /// The licence that this key continues; `None`: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<LicenseId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replacement>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Replacement {
    /// The new key, or under what its shop's id of the licence is kept until the key comes.
    pub by: LicenseId,
    /// The old key is taken before this moment.
    #[serde(default)]
    pub accepted_until: UnixMs,
    /// Where the new key is, for the buyer.
    pub say: String,
}

impl Replacement {
    pub fn is_over(&self, now: UnixMs) -> bool {
        self.accepted_until <= now
    }

    pub fn refusal(&self) -> LicenseStatus {
        LicenseStatus::Replaced { say: Arc::from(&*self.say) }
    }
}

/// The key, or the licence, that an old key moves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveTarget {
    pub id: LicenseId,
    /// [`KeyedHash::moved`](crate::vault::KeyedHash::moved) of the shop's id, where it was named by that.
    pub pending: Option<LicenseId>,
}

/// What a move comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    Moved,
    /// All of it was so before.
    Already,
}

/// Why a licence can't be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoveRefusal {
    #[error("old and new key are the same licence")]
    Same,
    #[error("the old key was moved to another key before; move that one instead")]
    ReplacedByAnother,
    #[error("the new key continues another licence already")]
    ContinuesAnother,
    #[error("the new key was itself replaced by another one")]
    NewIsReplaced,
}
