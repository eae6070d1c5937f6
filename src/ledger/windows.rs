//! The four current windows, kept because a month costs a calendar computation.

use gatekeeper_filters::kernel::{Period, UnixMs, Window};

/// Start of the window of each period kind, in the order of [`Period::ALL`].
pub type WindowStarts = [UnixMs; 4];

/// A window of each kind that is not in memory.
pub type MissingWindows = Vec<(Period, UnixMs)>;

#[derive(Debug, Clone, Copy)]
pub struct Windows([Window; 4]);

impl Windows {
    pub fn at(now: UnixMs) -> Self {
        Self(Period::ALL.map(|period| period.window(now)))
    }

    /// Moves to the windows of `now`; only those that ended are computed.
    pub fn turn(&mut self, now: UnixMs) -> &Self {
        for (window, period) in self.0.iter_mut().zip(Period::ALL) {
            if !window.contains(now) {
                *window = period.window(now);
            }
        }
        self
    }

    pub fn of(&self, period: Period) -> Window {
        self.0[period as usize]
    }

    pub fn starts(&self) -> WindowStarts {
        self.0.map(|window| window.start)
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self::at(UnixMs(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_windows_are_those_of_the_calendar() {
        let mut windows = Windows::default();
        for now in [0, 59_999, 60_000, 1_769_904_000_000 - 1, 1_769_904_000_000, 60_000] {
            let turned = *windows.turn(UnixMs(now));
            for period in Period::ALL {
                assert_eq!(turned.of(period), period.window(UnixMs(now)));
            }
        }
    }
}
