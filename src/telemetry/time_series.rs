//! What happened when: the last hour by the minute, the last day by five minutes. In memory, of a fixed
//! size, gone at restart.

use gatekeeper_filters::kernel::{UnixMs, UsageFigures};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{dollars, histogram::Histogram};

/// What is added up of the requests that ended in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WindowTotals {
    pub success: u64,
    pub failed: u64,
    pub refused: u64,
    #[serde(flatten)]
    pub used: UsageFigures,
    /// Picodollars.
    pub saved: u64,
    /// Milliseconds of whole requests that a provider was asked for.
    pub took: Histogram,
    /// Milliseconds to the first output.
    pub first: Histogram,
}

impl WindowTotals {
    pub fn add(&mut self, more: &Self) {
        for (to, from) in [
            (&mut self.success, more.success),
            (&mut self.failed, more.failed),
            (&mut self.refused, more.refused),
            (&mut self.saved, more.saved),
        ] {
            *to = to.saturating_add(from);
        }
        self.used.add(&more.used);
        self.took.add(&more.took);
        self.first.add(&more.first);
    }
}

/// Steps of time, the oldest overwritten by the newest.
pub struct Ring<T> {
    /// Milliseconds.
    step: u64,
    /// By number of the step (since 1970) and what is in it.
    slots: Box<[(u64, T)]>,
}

impl<T: Default + Clone> Ring<T> {
    pub fn new(step: u64, slots: usize) -> Self {
        Self { step, slots: vec![(0, T::default()); slots].into() }
    }

    /// The step of a given time, to add to.
    pub fn at(&mut self, now: UnixMs) -> Option<&mut T> {
        let number = now.0 / self.step;
        let slots = self.slots.len() as u64;
        let (is, slot) = self.slots.get_mut((number % slots) as usize)?;
        if *is != number {
            *slot = T::default();
            *is = number;
        }
        Some(slot)
    }

    /// The steps that are still stored at a given time, with their numbers.
    pub fn known(&self, now: UnixMs) -> impl Iterator<Item = (u64, &T)> {
        let last = now.0 / self.step;
        let first = (last + 1).saturating_sub(self.slots.len() as u64);
        let slots = self.slots.iter().filter(move |(number, _)| (first..=last).contains(number));
        slots.map(|(number, slot)| (*number, slot))
    }
}

const MINUTE: u64 = 60_000;
const MINUTES: usize = 60;
const FIVE: u64 = 5 * MINUTE;
const FIVES: usize = 288;

/// What one gateway remembers.
pub struct TimeSeries {
    pub minutes: Ring<WindowTotals>,
    day: Ring<WindowTotals>,
    /// Microseconds of requests that were the gateway's own, by the minute.
    pub overhead: Ring<Histogram>,
}

impl Default for TimeSeries {
    fn default() -> Self {
        Self {
            minutes: Ring::new(MINUTE, MINUTES),
            day: Ring::new(FIVE, FIVES),
            overhead: Ring::new(MINUTE, MINUTES),
        }
    }
}

impl TimeSeries {
    pub fn add(&mut self, sums: &WindowTotals, overhead: &Histogram, now: UnixMs) {
        for ring in [&mut self.minutes, &mut self.day] {
            if let Some(slot) = ring.at(now) {
                slot.add(sums);
            }
        }
        if let Some(slot) = self.overhead.at(now) {
            slot.add(overhead);
        }
    }

    pub fn shared(&self, now: UnixMs) -> SharedSeries {
        let of = |ring: &Ring<WindowTotals>| {
            ring.known(now).map(|(number, sums)| (number, sums.clone())).collect()
        };
        SharedSeries { minutes: of(&self.minutes), day: of(&self.day) }
    }
}

/// A time series as gateways exchange it: by number of the step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharedSeries {
    minutes: Vec<(u64, WindowTotals)>,
    day: Vec<(u64, WindowTotals)>,
}

impl SharedSeries {
    /// Adds the series of another gateway.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in [(&mut self.minutes, &other.minutes), (&mut self.day, &other.day)] {
            for (number, sums) in from {
                match to.iter_mut().find(|(known, _)| known == number) {
                    Some((_, known)) => known.add(sums),
                    None => to.push((*number, sums.clone())),
                }
            }
        }
    }

    /// Every step up to the running one, oldest first.
    pub fn to_json(&self, now: UnixMs) -> Value {
        json!({
            "minutes": series(&self.minutes, MINUTE, MINUTES, now),
            "day": series(&self.day, FIVE, FIVES, now),
        })
    }
}

fn series(of: &[(u64, WindowTotals)], step: u64, steps: usize, now: UnixMs) -> Value {
    let first = (now.0 / step + 1).saturating_sub(steps as u64);
    let mut all = vec![None; steps];
    for (number, sums) in of {
        let place = number.checked_sub(first).map(|place| place as usize);
        if let Some(slot) = place.and_then(|place| all.get_mut(place)) {
            *slot = Some(sums);
        }
    }
    let nothing = WindowTotals::default();
    let all: Vec<&WindowTotals> = all.into_iter().map(|sums| sums.unwrap_or(&nothing)).collect();
    let mut series = Map::new();
    let mut put = |name: &str, of: &dyn Fn(&WindowTotals) -> Value| {
        series.insert(name.into(), all.iter().map(|sums| of(sums)).collect());
    };
    put("success", &|sums| json!(sums.success));
    put("failed", &|sums| json!(sums.failed));
    put("refused", &|sums| json!(sums.refused));
    put("input", &|sums| json!(sums.used.input));
    put("output", &|sums| json!(sums.used.output));
    put("cost", &|sums| json!(dollars(sums.used.cost)));
    put("saved", &|sums| json!(dollars(sums.saved)));
    put("ttft_p50_ms", &|sums| json!(sums.first.quantile(0.5)));
    put("ttft_p95_ms", &|sums| json!(sums.first.quantile(0.95)));
    put("p50_ms", &|sums| json!(sums.took.quantile(0.5)));
    put("p95_ms", &|sums| json!(sums.took.quantile(0.95)));
    let from = &*UnixMs(first * step).to_rfc3339();
    json!({ "step_s": step / 1000, "from": from, "series": series })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(took: u64) -> WindowTotals {
        let used = UsageFigures { output: 7, ..UsageFigures::default() };
        let mut sums = WindowTotals { success: 1, used, ..WindowTotals::default() };
        sums.took.observe(took);
        sums
    }

    #[test]
    fn an_hour_and_a_day_are_known_and_what_is_older_is_not() {
        let start = UnixMs(1_800_000_000_000);
        let mut history = TimeSeries::default();
        for minute in 0..3_000 {
            history.add(&one(3), &Histogram::default(), UnixMs(start.0 + minute * MINUTE));
        }
        let now = UnixMs(start.0 + 2_999 * MINUTE);
        let shared = history.shared(now);
        assert_eq!((shared.minutes.len(), shared.day.len()), (MINUTES, FIVES));
        let json = shared.to_json(now);
        for (name, step, steps) in [("minutes", 60, MINUTES), ("day", 300, FIVES)] {
            let of = &json[name];
            assert_eq!(of["step_s"], step);
            for series in of["series"].as_object().unwrap().values() {
                assert_eq!(series.as_array().unwrap().len(), steps);
            }
            let sum: u64 = of["series"]["success"]
                .as_array()
                .unwrap()
                .iter()
                .map(|count| count.as_u64().unwrap())
                .sum();
            assert_eq!(sum, (steps as u64) * step / 60);
        }
        // Two days on, nothing of it is left.
        let later = UnixMs(now.0 + 48 * 60 * MINUTE);
        let json = history.shared(later).to_json(later);
        assert_eq!(json["day"]["series"]["success"][287], 0);
        assert_eq!(json["day"]["series"]["p50_ms"][287], Value::Null);
    }

    #[test]
    fn the_running_step_is_the_last_and_histories_add_up_by_the_clock() {
        let now = UnixMs(1_800_000_123_456);
        let (mut mine, mut theirs) = (TimeSeries::default(), TimeSeries::default());
        mine.add(&one(10), &Histogram::default(), now);
        theirs.add(&one(1_000), &Histogram::default(), now);
        theirs.add(&one(1_000), &Histogram::default(), UnixMs(now.0 - MINUTE));
        let mut all = mine.shared(now);
        let text = serde_json::to_string(&theirs.shared(now)).unwrap();
        all.add(&serde_json::from_str(&text).unwrap());
        let minutes = &all.to_json(now)["minutes"]["series"];
        assert_eq!((&minutes["success"][59], &minutes["success"][58]), (&json!(2), &json!(1)));
        assert_eq!(minutes["output"][59], 14);
        assert!(minutes["p95_ms"][59].as_f64().unwrap() > 900.0);
        assert!(minutes["p50_ms"][59].as_f64().unwrap() < 20.0);
    }
}
