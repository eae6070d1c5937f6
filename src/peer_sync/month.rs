//! The usage of a month: from Redis where gateways share one, else from this gateway's own store.

use anyhow::Context;
use gatekeeper_filters::kernel::UnixMs;

use super::daily_sync;
use crate::{
    config::settings::StoreSettings,
    ledger::sqlite::daily_usage::{self, DailyRow},
};

/// The days of the running month.
///
/// # Errors
/// The store can't be read.
pub fn of_this_month(store: &StoreSettings) -> anyhow::Result<Vec<DailyRow>> {
    rows(store, &daily_usage::date(UnixMs::now())[..7])
}

/// The days of a month (`2026-11`).
///
/// # Errors
/// The store can't be read.
pub fn rows(store: &StoreSettings, month: &str) -> anyhow::Result<Vec<DailyRow>> {
    if let Some(redis) = &store.redis {
        return daily_sync::of_month(redis, month);
    }
    let path = &store.path;
    // No month has a later day, and text sorts by time.
    daily_usage::read(path, &format!("{month}-01"), &format!("{month}-31"))
        .with_context(|| format!("store {}", path.display()))
}
