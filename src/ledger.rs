//! Usage of each licence: the counters behind every limit.
//!
//! [`EmbeddedLedger`] is the ledger of one machine. Counters in memory are the authority; a journal makes
//! each change survive `kill -9` before the caller goes on; SQLite is filled from the journal in
//! batches, for the next start and for the operator's own queries. An account is read from SQLite when its
//! licence asks, and leaves memory when it has not asked for ten minutes or more (`embedded::load`).
//!
//! ```text
//! reserve, settle, record ──► accounts (64 shards) ──► journal (mapped file, one short lock)
//!                                                        │ every 200 ms: msync, and
//!                                                        ▼ a batch with the sequence it reaches
//!                                                     SQLite: usage, requests, daily, open,
//!                                                             adjustments, actions
//! ```
//!
//! What holds at every step:
//! - N concurrent requests against a limit of L messages: exactly min(N, L) are granted.
//! - Settled + open messages never pass the limit; open ones are 0 when nothing is in flight.
//! - A reservation is charged once, in the windows in which it was made, however late it settles. The start
//!   of a window is part of a counter's key: nothing is ever reset.
//! - After `kill -9` everything settled is charged; what was open is charged one message and its
//!   input estimate at the next start. A power cut may lose the last 200 ms.
//! - What an operator gave or forgave belongs to one window and is as durable as a reservation; an
//!   action that comes again under its id is done once.
//! - Replaying the journal changes nothing twice: the applied sequence is in the same transaction.
//!
//! A reservation needs no expiry here: the store has one owner, which settles each one when the request
//! ends or vanishes, or at its own next start. An upgrade may hand the store over to another process
//! ([`crate::ledger::embedded::upgrade`]).

mod account;
mod accounts;
mod adjustment;
mod conversations;
mod distributed;
pub mod embedded;
pub mod in_memory_state;
mod journal;
mod message_ids;
mod open_error;
mod operator_action;
mod orphan;
pub mod sqlite;
#[cfg(test)]
mod tests;
mod windows;

use gatekeeper_filters::kernel::Record;

pub use self::{
    accounts::Residency,
    distributed::{
        DistributedLedger,
        operator_actions::{AdjustDone, AdjustError},
    },
    embedded::{
        EmbeddedLedger,
        operator_actions::{AdjustRequest, Adjustment, UsageOverview},
        pepper_check::PepperMismatch,
    },
    journal::JournalFull,
    open_error::StoreOpenError,
    operator_action::{OperatorAction, OperatorActionKind},
    sqlite::columns::SCHEMA,
};

use crate::ledger::journal::entry;

/// A finished request as an entry of the journal, for [`EmbeddedLedger::record_entry`].
pub fn entry_of(record: &Record) -> Vec<u8> {
    entry::EntryFrame::request(record).into_bytes()
}
