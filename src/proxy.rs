//! The public listener. The way of a request, in the order of these files:
//!
//! `gate` (may it in?) → filters `admit` → `body` → `ask` (what is asked?) → filters `request` →
//! `crate::upstream` (select, attempt, classify, relay) → `gateway::logging` (record, metrics).

mod claim;
mod conversation_id;
pub mod count_tokens;
pub mod devices;
mod failure_log;
pub mod gateway;
mod identify;
mod license_api;
pub mod local_endpoints;
pub mod malformed;
mod prompted;
mod replayed;
pub mod routes;
pub mod webhooks;
