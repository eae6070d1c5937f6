//! How well a key is. All times are milliseconds on a monotonic clock, so that a stepped wall
//! clock wakes or freezes no key.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Cooling without a stated time: 1 s, doubling to this.
const LONGEST_COOLING: Duration = Duration::from_secs(60);
/// A provider may state any time; one that asks for more than this is believed for a day.
const LONGEST_STATED: Duration = Duration::from_secs(24 * 3600);
/// `retry-after: 0` still means "not now".
const SHORTEST_STATED: Duration = Duration::from_millis(100);
/// A quarantined key is tried again after 30 s, doubling to 30 min.
const FIRST_QUARANTINE: Duration = Duration::from_secs(30);
const LONGEST_QUARANTINE: Duration = Duration::from_secs(30 * 60);

static BOOT: LazyLock<Instant> = LazyLock::new(Instant::now);

fn millis(at: Instant) -> u64 {
    at.saturating_duration_since(*BOOT).as_millis() as u64
}

/// Starts the clock; call once, early.
pub fn start_clock() {
    LazyLock::force(&BOOT);
}

/// Why a key rests until somebody, or time, has mended its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    BadCredential,
    NoPermission,
    NoMoney,
}

impl Why {
    pub fn name(self) -> &'static str {
        match self {
            Why::BadCredential => "bad_credential",
            Why::NoPermission => "no_permission",
            Why::NoMoney => "no_money",
        }
    }

    pub fn from_name(name: &str) -> Option<Why> {
        [Why::BadCredential, Why::NoPermission, Why::NoMoney].into_iter().find(|w| w.name() == name)
    }

    fn from_code(code: u32) -> Why {
        match code {
            0 => Why::BadCredential,
            1 => Why::NoPermission,
            _ => Why::NoMoney,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    Cooling { left_ms: u64 },
    Quarantined { why: Why, left_ms: u64 },
    Off,
}

impl State {
    /// Metric label.
    pub fn name(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Cooling { .. } => "cooling",
            State::Quarantined { .. } => "quarantined",
            State::Off => "off",
        }
    }

    pub const NAMES: [&'static str; 4] = ["ready", "cooling", "quarantined", "off"];
}

/// Rests until a moment, longer each time in a row.
#[derive(Debug, Default)]
struct Rest {
    until: AtomicU64,
    /// Rests in a row without a success between.
    in_a_row: AtomicU32,
}

impl Rest {
    fn left(&self, now: Instant) -> u64 {
        self.until.load(Relaxed).saturating_sub(millis(now))
    }

    fn begin(&self, stated: Option<Duration>, first: Duration, longest: Duration, now: Instant) {
        // Answers to requests that were open when the rest began are no news.
        let doubled = if self.left(now) > 0 {
            first
        } else {
            let times = self.in_a_row.fetch_add(1, Relaxed).min(16);
            first.saturating_mul(1 << times).min(longest)
        };
        let rest = stated.map_or(doubled, |stated| stated.clamp(SHORTEST_STATED, LONGEST_STATED));
        self.until.fetch_max(millis(now + rest).max(1), Relaxed);
    }

    /// An answer came. One to a request from before the rest began does not end the row.
    fn end(&self, now: Instant) {
        if self.in_a_row.load(Relaxed) > 0 && self.left(now) == 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }
}

/// Shared by the keys of one account.
#[derive(Debug, Default)]
pub struct GroupHealth {
    cooling: Rest,
}

/// One key's own health and counters.
#[derive(Debug, Default)]
pub struct KeyHealth {
    quarantine: Rest,
    why: AtomicU32,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub open: AtomicU64,
}

impl GroupHealth {
    /// `stated` is what the provider said; without it the pause doubles from one second.
    pub fn cool(&self, stated: Option<Duration>, now: Instant) {
        self.cooling.begin(stated, Duration::from_secs(1), LONGEST_COOLING, now);
    }

    pub fn succeeded(&self, now: Instant) {
        self.cooling.end(now);
    }

    pub fn left_ms(&self, now: Instant) -> u64 {
        self.cooling.left(now)
    }
}

impl KeyHealth {
    pub fn quarantine(&self, why: Why, now: Instant) {
        self.why.store(why as u32, Relaxed);
        self.quarantine.begin(None, FIRST_QUARANTINE, LONGEST_QUARANTINE, now);
    }

    /// Another gateway has found out.
    pub fn quarantine_for(&self, why: Why, left: Duration, now: Instant) {
        self.why.store(why as u32, Relaxed);
        self.quarantine.begin(Some(left), FIRST_QUARANTINE, LONGEST_QUARANTINE, now);
    }

    pub fn succeeded(&self, now: Instant) {
        self.quarantine.end(now);
    }

    pub fn quarantined(&self, now: Instant) -> Option<(Why, u64)> {
        let left = self.quarantine.left(now);
        (left > 0).then(|| (Why::from_code(self.why.load(Relaxed)), left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unstated_pause_doubles_until_an_answer_comes() {
        let group = GroupHealth::default();
        let mut now = *BOOT + Duration::from_secs(1);
        for expected in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            group.cool(None, now);
            assert_eq!(group.left_ms(now), expected);
            now += Duration::from_millis(expected);
        }
        group.succeeded(now);
        group.cool(None, now);
        assert_eq!(group.left_ms(now), 1000);
    }

    #[test]
    fn late_answers_of_the_same_burst_do_not_double_it() {
        let group = GroupHealth::default();
        let now = *BOOT + Duration::from_secs(1);
        for _ in 0..50 {
            group.cool(None, now);
        }
        assert_eq!(group.left_ms(now), 1000);
    }

    #[test]
    fn a_stated_pause_is_kept_to_the_millisecond_and_never_shortened() {
        let group = GroupHealth::default();
        let now = *BOOT + Duration::from_secs(1);
        group.cool(Some(Duration::from_millis(51_832)), now);
        group.cool(Some(Duration::from_millis(10)), now);
        assert_eq!(group.left_ms(now), 51_832);
    }
}
