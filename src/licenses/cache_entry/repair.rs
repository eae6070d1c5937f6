//! Repairs entries that were written while the clock was ahead.

use std::time::Duration;

use gatekeeper_filters::kernel::UnixMs;

use super::{CachedDevice, CachedLicense, Suspect};
use crate::licenses::clock::is_ahead;

/// Age given to an answer whose time is ahead: served, and revalidated.
const ASSUMED_AGE: Duration = Duration::from_secs(24 * 3600);

impl CachedLicense {
    /// Whether any of its times is ahead of `now`.
    pub fn is_ahead(&self, now: UnixMs) -> bool {
        let latest = self.answered.max(self.checked).max(self.marked);
        let suspect = self.turned.is_some_and(|suspect| is_ahead(suspect.first, now));
        suspect
            || is_ahead(latest, now)
            || self.devices.iter().any(|device| is_ahead(device.checked, now))
    }

    /// The entry without times ahead of `now`.
    #[must_use]
    pub fn repaired(&self, now: UnixMs) -> CachedLicense {
        let answer = |at: UnixMs| match is_ahead(at, now) {
            true => UnixMs(now.0.saturating_sub(ASSUMED_AGE.as_millis() as u64)),
            false => at,
        };
        let begin = |at: UnixMs| if is_ahead(at, now) { now } else { at };
        CachedLicense {
            checked: answer(self.checked),
            answered: answer(self.answered),
            marked: begin(self.marked),
            turned: self.turned.map(|turned| Suspect { first: begin(turned.first), ..turned }),
            devices: self
                .devices
                .iter()
                .map(|device| CachedDevice { checked: begin(device.checked), ..device.clone() })
                .collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_485_600_000);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    #[test]
    fn times_ahead_are_replaced_and_the_rest_stays() {
        let later = NOW.plus(YEAR);
        let device = CachedDevice {
            id: "one".into(),
            checked: later,
            gone: true,
            ..CachedDevice::default()
        };
        let entry = CachedLicense {
            checked: later,
            answered: later,
            marked: later,
            turned: Some(Suspect { first: later, times: 2 }),
            devices: vec![device],
            good: Some("pro".into()),
            ..CachedLicense::default()
        };
        assert!(entry.is_ahead(NOW) && !entry.is_ahead(later));
        let repaired = entry.repaired(NOW);
        assert_eq!(
            (repaired.checked, repaired.answered.plus(ASSUMED_AGE)),
            (repaired.answered, NOW)
        );
        assert_eq!((repaired.marked, repaired.devices[0].checked), (NOW, NOW));
        assert_eq!(repaired.turned, Some(Suspect { first: NOW, times: 2 }));
        assert!(!repaired.is_ahead(NOW));
        assert_eq!(repaired.repaired(NOW), repaired);
        assert_eq!(entry.repaired(later), entry, "nothing is ahead");
        assert_eq!(entry.repaired(UnixMs(86_400_000)), entry, "1970: the clock is not set");
    }
}
