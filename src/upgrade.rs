//! Another process takes over: a new version, or one that reads what only a start reads.
//!
//! ```text
//! successor                                     running gateway
//!    ── hello: which versions, which store ──►    is it one that can take over?
//!    ◄── welcome ──                               (waits for SIGQUIT, or for `gatekeeper upgrade`)
//!                                                 new requests wait; the ledger's calls are let end
//!    ◄── sockets and the store's lock ──
//!    ◄── state: what is in memory alone ──        from here on the ledger is the successor's
//!    ◄══ what open requests do ══►                reserve, settle, records, over this connection
//!    ── ready ──►                                 closes its ports; what still comes is sent on
//!                                                 ends when the last stream has ended
//! ```
//!
//! **There is one ledger at any time, so counting stays exact.** A request that is open here when the
//! ledger is handed over settles over the connection; the successor processes these commands as its own
//! requests. Each command is kept here until the successor has confirmed it: as a rule it is in the journal
//! then, while a settlement that finds no room there, or whose message the shared store decides, waits in
//! the successor's memory for a short time, as one of its own would.
//!
//! **There are two processes at most.** While the first still drains, its successor refuses another upgrade, so
//! what the first settles has one place to go.
//!
//! Each side survives the other. If the connection ends before the successor was ready, or later while
//! this process still runs, this process makes sure that the successor is dead, reads the store
//! again with its own reservations still open, repeats what was not confirmed, and serves on. If this
//! process dies, the successor charges its open requests, as the next start would have done.
//!
//! The connection is a Unix socket in a directory of mode 0700, one for each configuration, and both sides
//! check the peer (SO_PEERCRED). A process with access to the socket could also read the store.

mod adopted_requests;
mod control_socket;
pub mod protocol;
pub mod receiver;
mod remote_ledger;
pub mod runtime_dir;
mod sender;
mod switchable_ledger;
mod times;

pub use self::times::STORE_TIME;

pub use self::{
    control_socket::{UpgradeServer, UpgradeState},
    receiver::Predecessor,
    runtime_dir::RuntimeDir,
    switchable_ledger::{CallGuard, SwitchableLedger},
};
