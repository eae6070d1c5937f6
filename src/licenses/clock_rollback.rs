//! A clock that is set back: what was written down under the wrong time.
//!
//! Records say when something was asked, and of two words the later one holds. A moment that has not
//! come yet would make a no, or a yes, hold until it has: for a day, if the clock was a day ahead. So
//! such moments are taken for others as soon as it is noticed: when records are read from a disk or the
//! shared store, and within a second of the step.

use std::time::{Duration, Instant};

use gatekeeper_filters::kernel::UnixMs;

use super::{
    cache_entry::{CachedDevice, CachedLicense, Suspect},
    validator::LicenseValidator,
};

/// How far the clocks of gateways that share a store may be apart.
const SLACK: Duration = Duration::from_secs(300);
/// 2026-01-01T00:00:00Z. A machine that believes in an earlier day has not heard the time yet: what it
/// would make of its records would hurt when it has.
const FIRST_DAY: UnixMs = UnixMs(1_767_225_600_000);
/// What was said at a moment that has not come counts as said so long ago: served, and asked again.
const LONG_AGO: Duration = Duration::from_secs(24 * 3600);
const LOOK: Duration = Duration::from_secs(1);

impl CachedLicense {
    /// The record without moments ahead of `now`.
    #[must_use]
    pub fn sane(&self, now: UnixMs) -> CachedLicense {
        let is_ahead = |at: UnixMs| at > now.plus(SLACK) && now >= FIRST_DAY;
        let said = |at: UnixMs| match is_ahead(at) {
            true => UnixMs(now.0.saturating_sub(LONG_AGO.as_millis() as u64)),
            false => at,
        };
        let began = |at: UnixMs| if is_ahead(at) { now } else { at };
        CachedLicense {
            checked: said(self.checked),
            answered: said(self.answered),
            marked: began(self.marked),
            turned: self.turned.map(|turned| Suspect { first: began(turned.first), ..turned }),
            devices: self
                .devices
                .iter()
                .map(|device| CachedDevice { checked: began(device.checked), ..device.clone() })
                .collect(),
            ..self.clone()
        }
    }
}

/// Compares the wall clock with one that can't be set.
struct ClockMonitor {
    wall: UnixMs,
    steady: Instant,
}

impl ClockMonitor {
    /// How far the wall clock was set since the last look, if it was.
    fn jump(&mut self, wall: UnixMs, steady: Instant) -> Option<Jump> {
        let expected = self.wall.plus(steady.saturating_duration_since(self.steady));
        *self = Self { wall, steady };
        let by = Duration::from_millis(expected.0.abs_diff(wall.0));
        let jump = if wall < expected { Jump::Back(by) } else { Jump::Forward(by) };
        (by > SLACK).then_some(jump)
    }
}

/// A wall clock that was set.
#[derive(Debug, PartialEq)]
enum Jump {
    Back(Duration),
    Forward(Duration),
}

impl LicenseValidator {
    /// Looks after the clock for as long as the process lives.
    pub(super) async fn watch_clock(&self) {
        let mut clock = ClockMonitor { wall: UnixMs::now(), steady: Instant::now() };
        loop {
            tokio::time::sleep(LOOK).await;
            match clock.jump(UnixMs::now(), Instant::now()) {
                Some(Jump::Back(by)) => {
                    log::warn!(
                        "The clock was set back by {} s: licences are checked anew.",
                        by.as_secs()
                    );
                    self.forget_the_future(UnixMs::now());
                }
                Some(Jump::Forward(by)) => {
                    log::info!("The clock was set forward by {} s.", by.as_secs());
                }
                None => {}
            }
        }
    }

    /// Nothing that was noted under a later time holds any more.
    fn forget_the_future(&self, now: UnixMs) {
        self.refused.invalidate_all();
        self.strikes.invalidate_all();
        self.visitors.forget();
        for (id, kept) in self.records.all() {
            kept.forget_the_future(now);
            let change = |record: Option<&super::cache_entry::CachedLicense>| {
                let (record, sane) = (record?, record?.sane(now));
                (sane != *record).then_some(sane)
            };
            if self.records.update(id, change).is_some() {
                self.shelf.put(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_485_600_000);
    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn steps_count_and_small_ones_do_not() {
        let start = Instant::now();
        let mut clock = ClockMonitor { wall: NOW, steady: start };
        let minute = Duration::from_secs(60);
        assert_eq!(clock.jump(NOW.plus(minute), start + minute), None, "time passes");
        let forward = clock.jump(NOW.plus(DAY), start + minute);
        assert_eq!(forward, Some(Jump::Forward(DAY - minute)));
        let back = clock.jump(NOW.plus(minute), start + minute);
        assert_eq!(back, Some(Jump::Back(DAY - minute)));
        assert_eq!(clock.jump(NOW, start + minute), None, "a minute is no step");
        let hour = Duration::from_secs(3600);
        let stopped = clock.jump(NOW, start + minute + hour);
        assert_eq!(stopped, Some(Jump::Back(hour)), "it stood still");
    }

    #[test]
    fn moments_that_have_not_come_are_taken_for_others_and_the_rest_stays() {
        let tomorrow = NOW.plus(DAY);
        let device = CachedDevice {
            id: "one".into(),
            checked: tomorrow,
            gone: true,
            ..CachedDevice::default()
        };
        let record = CachedLicense {
            checked: tomorrow,
            answered: tomorrow,
            marked: tomorrow,
            turned: Some(Suspect { first: tomorrow, times: 2 }),
            devices: vec![device],
            good: Some("pro".into()),
            ..CachedLicense::default()
        };
        let sane = record.sane(NOW);
        assert_eq!((sane.checked, sane.answered.plus(DAY)), (sane.answered, NOW));
        assert_eq!((sane.marked, sane.devices[0].checked), (NOW, NOW));
        assert_eq!(sane.turned, Some(Suspect { first: NOW, times: 2 }));
        assert_eq!(sane.sane(NOW), sane);
        assert_eq!(record.sane(tomorrow), record, "nothing is ahead");
        assert_eq!(record.sane(UnixMs(86_400_000)), record, "1970 is no time to decide in");
    }
}
