//! An operator action on a licence, as the journal and the store keep it.

use std::borrow::Cow;

use gatekeeper_filters::kernel::{LicenseId, UnixMs};

use super::adjustment::LimitChanges;

/// Its place is its number in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorActionKind {
    Grant,
    Reset,
    Revoke,
    Restore,
}

impl OperatorActionKind {
    pub const ALL: [OperatorActionKind; 4] = [
        OperatorActionKind::Grant,
        OperatorActionKind::Reset,
        OperatorActionKind::Revoke,
        OperatorActionKind::Restore,
    ];

    pub fn name(self) -> &'static str {
        match self {
            OperatorActionKind::Grant => "grant",
            OperatorActionKind::Reset => "reset",
            OperatorActionKind::Revoke => "revoke",
            OperatorActionKind::Restore => "restore",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Complete in itself: the row that an operator may query, and what it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorAction<'a> {
    pub time: UnixMs,
    pub kind: OperatorActionKind,
    pub license: LicenseId,
    /// Of one licence, an action of one kind and id is done once.
    pub id: Cow<'a, str>,
    /// What it did, in words.
    pub detail: Cow<'a, str>,
    pub note: Cow<'a, str>,
    pub changes: Option<LimitChanges>,
}

impl OperatorAction<'_> {
    pub fn is_same(&self, kind: OperatorActionKind, id: &str) -> bool {
        self.kind == kind && self.id == id
    }
}
