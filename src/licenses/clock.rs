//! Times under a clock that may have been wrong.
//!
//! A time that is ahead of the clock was recorded while the clock was. It counts as long past: otherwise a
//! refusal, or an entry of the cache, would be valid until the clock gets there.

use std::time::Duration;

use gatekeeper_filters::kernel::UnixMs;

/// How far the clocks of gateways that share a store may differ.
const SLACK: Duration = Duration::from_secs(300);
/// 2026-01-01T00:00:00Z. A clock before this is not set yet: no time is judged by it.
const FIRST_DAY: UnixMs = UnixMs(1_767_225_600_000);

/// Whether a time was recorded while the clock was ahead.
pub fn is_ahead(at: UnixMs, now: UnixMs) -> bool {
    at > now.plus(SLACK) && now >= FIRST_DAY
}

/// The time since `since`; the maximum if that was recorded while the clock was ahead.
pub fn passed(since: UnixMs, now: UnixMs) -> Duration {
    match is_ahead(since, now) {
        true => Duration::MAX,
        false => Duration::from_millis(now.0.saturating_sub(since.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ahead_of_the_clock_is_long_past() {
        let now = UnixMs(1_795_485_600_000);
        let second = Duration::from_secs(1);
        assert_eq!(passed(now, now.plus(second)), second);
        assert_eq!(passed(now.plus(SLACK), now), Duration::ZERO, "clocks may differ");
        for ahead in [SLACK + second, Duration::from_secs(365 * 86_400)] {
            assert_eq!(passed(now.plus(ahead), now), Duration::MAX);
        }
        assert_eq!(passed(now, UnixMs(86_400_000)), Duration::ZERO, "1970: the clock is not set");
    }
}
