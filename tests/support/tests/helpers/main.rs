//! The provider, the shop and the Redis of the tests do what they are told: without that no other test means anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod provider;
mod shop;
