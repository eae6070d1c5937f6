//! Gatekeeper: a gateway between a desktop app and the AI providers its seller pays for.

pub mod cli;
pub mod config;
pub mod ledger;
pub mod vault;
