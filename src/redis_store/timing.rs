//! Times that the parts of the store share.

use std::time::Duration;

pub const CONNECT: Duration = Duration::from_secs(1);

/// Between two looks at the store.
pub const BEAT: Duration = Duration::from_millis(500);
