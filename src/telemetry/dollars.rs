//! Picodollars as dollars.

use gatekeeper_filters::kernel::DOLLAR;

/// Of picodollars.
pub fn dollars(picodollars: u64) -> f64 {
    picodollars as f64 / DOLLAR as f64
}
