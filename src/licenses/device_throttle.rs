//! Limits the unknown devices and the activations of one licence.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use moka::sync::Cache;
use parking_lot::Mutex;

/// Licences remembered at the same time.
const LICENSES: u64 = 65_536;
const HOUR: Duration = Duration::from_secs(3600);

/// What one licence did in the last hour.
#[derive(Default)]
pub struct DeviceThrottle {
    /// Held during a call about a device of this licence: concurrent requests wait for its answer.
    pub asking: Arc<tokio::sync::Mutex<()>>,
    /// Hashed ids that were refused.
    pub unknown: Vec<(String, UnixMs)>,
    pub activations: Vec<UnixMs>,
    /// The last background check of a device.
    pub tried: UnixMs,
}

pub fn throttles() -> Cache<LicenseId, Arc<Mutex<DeviceThrottle>>> {
    Cache::builder().max_capacity(LICENSES).time_to_idle(HOUR).build()
}
