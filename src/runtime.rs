//! State that requests hold or share while they are served: the snapshot of the configuration, the context of a
//! request, and what outlives both.

pub mod drain_slots;
pub mod replays;
pub mod request_context;
pub mod session_affinity;
pub mod snapshot;
pub mod target_order;
pub mod webhook_slots;
