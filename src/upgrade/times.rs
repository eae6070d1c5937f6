//! How long the steps of an upgrade may take.

use std::time::Duration;

/// How long a successor waits for the shared store, while its predecessor's requests wait for it.
pub const STORE_TIME: Duration = Duration::from_secs(3);
