//! What a ledger has in memory alone, and what goes to another process with its store.

use std::os::fd::OwnedFd;

use gatekeeper_filters::kernel::LicenseId;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::{
    account::Rate,
    conversations::{ConversationCounts, CountedMessage, FurtherTurns},
    distributed::ReservationsState,
    message_ids::KnownId,
};

/// What a ledger has in memory alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InMemoryState {
    /// Reservations of requests that go on: hold and tokens held.
    pub open: Vec<(u64, u64)>,
    /// The last hold that was given out, in each shard.
    pub made: Vec<u64>,
    pub places: Vec<(LicenseId, u32)>,
    /// Licences that were let in this minute.
    pub rates: Vec<(LicenseId, [Rate; 4])>,
    pub ids: Vec<(LicenseId, Vec<KnownId>)>,
    #[serde(default)]
    pub conversations: Vec<(LicenseId, Vec<(u64, ConversationCounts)>)>,
    /// Turns beyond those that have a place in the counts.
    #[serde(default)]
    pub further_turns: Vec<(LicenseId, Vec<(u64, FurtherTurns)>)>,
    /// Messages of open requests that conversations have counted, by hold.
    #[serde(default)]
    pub counted: Vec<(u64, CountedMessage)>,
    /// Where several gateways count together.
    pub shared: Option<ReservationsState>,
}

impl InMemoryState {
    /// Licences that something is in memory of, open requests aside; some of them twice.
    pub(crate) fn licenses(&self) -> impl Iterator<Item = LicenseId> + '_ {
        let places = self.places.iter().map(|(license, _)| license);
        let rates = self.rates.iter().map(|(license, _)| license);
        let ids = self.ids.iter().map(|(license, _)| license);
        let conversations = self.conversations.iter().map(|(license, _)| license);
        let turns = self.further_turns.iter().map(|(license, _)| license);
        places.chain(rates).chain(ids).chain(conversations).chain(turns).copied()
    }

    pub(crate) fn live(&self) -> FxHashSet<u64> {
        self.open.iter().map(|(hold, _)| *hold).collect()
    }
}

/// A store that another process gave away.
pub struct InheritedStore {
    pub lock: OwnedFd,
    pub volatile: InMemoryState,
}
