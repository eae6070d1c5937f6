//! Licences of our own. Their records lie where those of shops' licences do: in memory, on this machine's disk, and
//! on the store that gateways share, from which each gateway fetches those that others made.
//!
//! ```text
//! HMAC of the first key ── licence: plan, end, state, what bought it, the sealed key until it was shown
//! HMAC of a later key   ── the licence it stands for
//! HMAC of an order      ── the licences it made: a Stripe session, an operator's order
//! ```

mod app_api;
mod book;
mod forget;
mod identify;
mod import;
mod list;
mod mint;
mod operator;
mod record;
mod roster;
mod seal;
mod state;
pub mod stripe;
mod tend;

pub use self::{
    app_api::{AppCall, AppQuestion},
    book::{IssueError, IssuedBook},
    identify::KeyShape,
    import::{ImportOutcome, ImportRow, ImportedDevice},
    list::ListFilter,
    mint::{IssueRequest, MintedKey},
    operator::RotateRequest,
    record::{ImportedIds, IssuedKind, IssuedLicense, IssuedRecord, IssuedStatus},
    state::IssuedState,
};
