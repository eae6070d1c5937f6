//! What an operator did about a licence.

use std::borrow::Cow;

use gatekeeper_filters::kernel::{LicenseId, UnixMs};

use super::adjustment::Changes;

/// Its place is its number in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Grant,
    Reset,
    Revoke,
    Restore,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Grant, Kind::Reset, Kind::Revoke, Kind::Restore];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Grant => "grant",
            Kind::Reset => "reset",
            Kind::Revoke => "revoke",
            Kind::Restore => "restore",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Complete in itself: the row that an operator may query, and what it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action<'a> {
    pub time: UnixMs,
    pub kind: Kind,
    pub license: LicenseId,
    /// Of one licence, an action of one kind and id is done once.
    pub id: Cow<'a, str>,
    /// What it did, in words.
    pub detail: Cow<'a, str>,
    pub note: Cow<'a, str>,
    pub changes: Option<Changes>,
}

impl Action<'_> {
    pub fn is_same(&self, kind: Kind, id: &str) -> bool {
        self.kind == kind && self.id == id
    }
}
