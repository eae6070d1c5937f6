//! A reservation that lost its request.

use gatekeeper_filters::kernel::About;

use super::journal::entry::ReservedEntry;

/// A reservation without an outcome, and where it counts if it never gets one.
#[derive(Debug, Clone)]
pub struct OrphanedReservation {
    pub reserved: ReservedEntry,
    pub about: About,
    /// Picodollars of its input.
    pub cost: u64,
}
