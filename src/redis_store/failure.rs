//! Why an operation on the store failed.

/// The store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreUnavailable;

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFailure {
    /// The store does not answer; the operation may have had its effect all the same.
    Away,
    /// It answers that it does not do this.
    Refused,
}

impl From<StoreFailure> for StoreUnavailable {
    fn from(_: StoreFailure) -> Self {
        StoreUnavailable
    }
}
