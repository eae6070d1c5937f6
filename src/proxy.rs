//! The public listener. The way of a request, in the order of these files:
//!
//! `gate` (may it in?) → filters `admit` → `body` → `ask` (what is asked?) → filters `request` →
//! `crate::upstream` (select, attempt, classify, relay) → `gateway::logging` (record, metrics).

pub mod address;
pub mod ask;
pub mod body;
pub mod buffered;
mod conversation;
pub mod count_tokens;
pub mod devices;
pub mod dropped;
pub mod fields;
pub mod flight;
pub mod gate;
pub mod gateway;
pub mod local;
pub mod request_id;
pub mod respond;
pub mod unseen;
pub mod webhooks;
mod weight;
