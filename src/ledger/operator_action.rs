//! An operator action on a licence, as the journal and the store keep it.

use std::borrow::Cow;

use gatekeeper_filters::kernel::{LicenseId, Period, UnixMs};

use super::{
    adjustment::{GivenAllowance, LimitChanges},
    windows::Windows,
};

/// Its place is its number in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorActionKind {
    Grant,
    Reset,
    Revoke,
    Restore,
    /// To another key; its changes are what the new key had used by itself.
    Move,
    Issue,
    Rotate,
    Extend,
    Expire,
    Import,
    Forget,
}

impl OperatorActionKind {
    pub const ALL: [OperatorActionKind; 11] = [
        OperatorActionKind::Grant,
        OperatorActionKind::Reset,
        OperatorActionKind::Revoke,
        OperatorActionKind::Restore,
        OperatorActionKind::Move,
        OperatorActionKind::Issue,
        OperatorActionKind::Rotate,
        OperatorActionKind::Extend,
        OperatorActionKind::Expire,
        OperatorActionKind::Import,
        OperatorActionKind::Forget,
    ];

    pub fn name(self) -> &'static str {
        match self {
            OperatorActionKind::Grant => "grant",
            OperatorActionKind::Reset => "reset",
            OperatorActionKind::Revoke => "revoke",
            OperatorActionKind::Restore => "restore",
            OperatorActionKind::Move => "move",
            OperatorActionKind::Issue => "issue",
            OperatorActionKind::Rotate => "rotate",
            OperatorActionKind::Extend => "extend",
            OperatorActionKind::Expire => "expire",
            OperatorActionKind::Import => "import",
            OperatorActionKind::Forget => "forget",
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
    /// What counts as used from this action on: messages and tokens.
    pub fn used(&self) -> Option<(u64, u64)> {
        let changes = self.changes.filter(|_| self.kind == OperatorActionKind::Move)?;
        Some((changes.messages.extra, changes.tokens.extra))
    }

    /// What is given, in the windows of its time.
    pub fn given(&self, windows: &Windows) -> impl Iterator<Item = (Period, GivenAllowance)> {
        let changes = self.changes.filter(|_| self.kind != OperatorActionKind::Move);
        let given = changes.map(|changes| changes.given(windows).collect::<Vec<_>>());
        given.unwrap_or_default().into_iter()
    }

    pub fn is_same(&self, kind: OperatorActionKind, id: &str) -> bool {
        self.kind == kind && self.id == id
    }
}
