//! Load for proxies and what they cost under it: Gatekeeper, a bare Pingora proxy and nginx on the same
//! requests and answers, timed side by side or counted.
#![allow(clippy::print_stdout)] // the tables are what this is for

pub mod compare;
pub mod contender;
pub mod count;
mod fleet;
pub mod generator;
mod machine;
pub mod many_licenses;
mod page;
pub mod provider;
mod provider_tls;
pub mod redis;
mod report;
pub mod traffic;
