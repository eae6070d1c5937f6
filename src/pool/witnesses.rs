//! The licences that met the same refusal. A refusal of one licence may be caused by its request; the same
//! refusal of several is caused by the key, the account or the provider.

/// Refusals of this many licences point to the provider, not to the requests.
const ENOUGH: usize = 3;

/// Licences that were refused, and when; one entry each, the latest last.
#[derive(Debug, Default)]
pub struct Witnesses(Vec<(u64, u64)>);

impl Witnesses {
    /// A licence was refused. Whether enough were, within so many milliseconds.
    pub fn add(&mut self, license: u64, now: u64, within: u64) -> bool {
        let is_recent = |at: u64| now.saturating_sub(at) <= within;
        self.0.retain(|(known, at)| *known != license && is_recent(*at));
        if self.0.len() == ENOUGH {
            self.0.remove(0);
        }
        self.0.push((license, now));
        self.are_enough()
    }

    /// As of the last one.
    pub fn are_enough(&self) -> bool {
        self.0.len() == ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_licences_are_enough_however_often_each_is_refused() {
        let mut witnesses = Witnesses::default();
        for (license, at, enough) in [
            (1, 0, false),
            (1, 10, false),
            (2, 20, false),
            (1, 30, false),
            (3, 40, true),
            (4, 50, true),
            // Those from before 60 are too old.
            (5, 160, false),
            (6, 170, false),
        ] {
            assert_eq!(witnesses.add(license, at, 100), enough, "{license} at {at}");
        }
        assert!(!witnesses.are_enough());
        assert!(witnesses.add(7, 10_000, u64::MAX));
    }
}
