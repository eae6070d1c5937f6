//! UTC days, in which budgets are counted.

use gatekeeper_filters::kernel::{Period, UnixMs};

/// Start of the day of `now`.
pub(super) fn start(now: UnixMs) -> u64 {
    Period::Day.window(now).start.0
}
