//! Calendar windows in UTC. A limit is "N per period"; a window is one instance of a period.
//!
//! The window's start is part of every counter's key, so nothing ever has to be reset.

use std::{cell::RefCell, sync::Arc};

use jiff::{
    ToSpan,
    civil::{Date, Time},
    tz::Offset,
};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

fn nothing_yet() -> (u64, Arc<str>) {
    (0, Arc::from(""))
}

impl UnixMs {
    /// The system clock; before 1970 counts as 1970.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |d| d.as_millis() as u64))
    }

    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// Whole seconds from `self` until `later`, rounded up; 0 when it has passed.
    pub fn seconds_until(self, later: UnixMs) -> u64 {
        later.0.saturating_sub(self.0).div_ceil(1000)
    }

    /// RFC 3339 with whole seconds, as it stands in answers: `2026-12-01T00:00:00Z`. Each thread
    /// remembers the last one: the reset of a window and the current second are asked for again
    /// and again.
    pub fn to_rfc3339(self) -> Arc<str> {
        thread_local! {
            static LAST: RefCell<[(u64, Arc<str>); 2]> = RefCell::new([nothing_yet(), nothing_yet()]);
        }
        let second = self.0 / 1000;
        LAST.with_borrow_mut(|last| {
            // Resets are whole minutes, now is mostly not: two places keep them apart.
            let place = &mut last[usize::from(second.is_multiple_of(60))];
            if place.0 != second || place.1.is_empty() {
                let text = jiff::Timestamp::from_second(second as i64);
                *place = (second, text.map_or_else(|_| Arc::from(""), |t| t.to_string().into()));
            }
            place.1.clone()
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Period {
    Minute,
    Hour,
    Day,
    Month,
}

/// `start` is inside the window, `end` is the start of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    pub start: UnixMs,
    pub end: UnixMs,
}

impl Window {
    pub fn contains(&self, at: UnixMs) -> bool {
        self.start <= at && at < self.end
    }
}

impl Period {
    pub const ALL: [Period; 4] = [Period::Minute, Period::Hour, Period::Day, Period::Month];

    pub fn name(self) -> &'static str {
        match self {
            Period::Minute => "minute",
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Month => "month",
        }
    }

    /// The calendar window (UTC) that `at` falls into.
    pub fn window(self, at: UnixMs) -> Window {
        let fixed = |ms: u64| {
            let start = at.0 - at.0 % ms;
            Window { start: UnixMs(start), end: UnixMs(start + ms) }
        };
        match self {
            Period::Minute => fixed(60_000),
            Period::Hour => fixed(3_600_000),
            Period::Day => fixed(86_400_000),
            Period::Month => month(at).unwrap_or_else(|| fixed(30 * 86_400_000)),
        }
    }
}

fn month(at: UnixMs) -> Option<Window> {
    let now = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    let first = Offset::UTC.to_datetime(now).date().first_of_month();
    let next = first.checked_add(1.month()).ok()?;
    let ms = |date: Date| {
        let midnight = Offset::UTC.to_timestamp(date.to_datetime(Time::midnight())).ok()?;
        Some(UnixMs(midnight.as_millisecond().max(0) as u64))
    };
    Some(Window { start: ms(first)?, end: ms(next)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let january = Period::Month.window(UnixMs(1_769_904_000_000 - 1)); // 2026-01-31T23:59:59.999Z
        assert_eq!(&*january.end.to_rfc3339(), "2026-02-01T00:00:00Z");
        assert_eq!(&*Period::Month.window(january.end).end.to_rfc3339(), "2026-03-01T00:00:00Z");
    }

    #[test]
    fn each_moment_is_in_exactly_one_window() {
        for period in Period::ALL {
            let window = period.window(UnixMs(1_795_485_600_123));
            assert!(window.contains(UnixMs(1_795_485_600_123)));
            assert!(!window.contains(window.end));
            assert_eq!(period.window(window.end).start, window.end);
        }
    }
}
