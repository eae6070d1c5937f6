//! What was used today (UTC), by model: begun with what the store knows, ended at midnight.

use gatekeeper_filters::kernel::{ModelTotals, Period, Record, UnixMs, UsageFigures, totals::add};
use serde::{Deserialize, Serialize};

/// Milliseconds before its start from which a day may already be used: the clock has stepped back over
/// midnight, or is behind that of another gateway.
const STEP: u64 = 5 * 60 * 1000;

/// The models of one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DailyTotals {
    /// Its start.
    pub day: u64,
    pub models: Vec<ModelTotals>,
    /// Picodollars, since the gateway runs: the store does not know what was saved.
    pub saved: u64,
}

/// Start of the day of `at`.
pub fn day(at: UnixMs) -> u64 {
    Period::Day.window(at).start.0
}

impl DailyTotals {
    /// Counts one request in the day in which it came, as the store does.
    pub fn count(&mut self, record: &Record, saved: u64) {
        if record.license.is_none() || record.model.is_empty() {
            return;
        }
        let came = day(record.time);
        if came > self.day {
            *self = Self { day: came, ..Self::default() };
        }
        if came == self.day {
            let one = ModelTotals {
                model: record.model.clone(),
                figures: UsageFigures::of_request(record),
            };
            add(&mut self.models, &one);
            self.saved = self.saved.saturating_add(saved);
        }
    }

    /// What the store knows of the day of `now`.
    pub fn of_models(now: UnixMs, models: Vec<ModelTotals>) -> Self {
        Self { day: day(now), models, saved: 0 }
    }

    /// Takes another count of the same day where it knows of more: what this one has is part of it.
    pub fn raise(&mut self, known: &Self) {
        if known.day != self.day {
            return self.add(known);
        }
        for model in &known.models {
            match self.models.iter_mut().find(|own| own.model == model.model) {
                Some(own) if own.figures.requests < model.figures.requests => own.clone_from(model),
                Some(_) => {}
                None => add(&mut self.models, model),
            }
        }
    }

    /// Adds another count, when it is of this day or of a later one, which ends this one.
    pub fn add(&mut self, other: &Self) {
        if other.day > self.day {
            *self = Self { day: other.day, ..Self::default() };
        }
        if other.day == self.day {
            for model in &other.models {
                add(&mut self.models, model);
            }
            self.saved = self.saved.saturating_add(other.saved);
        }
    }

    /// At midnight nothing has been used yet. A day far in the future was recorded under a wrong clock: it
    /// must not block today's figures until it begins.
    pub fn turn(&mut self, now: UnixMs) {
        let today = day(now);
        if self.day < today || self.day > now.0.saturating_add(STEP) {
            *self = Self { day: today, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::totals::MODELS;

    use super::*;

    const DAY: u64 = 86_400_000;

    fn of(day: u64, model: &str, input: u64) -> DailyTotals {
        let figures = UsageFigures { requests: 1, input, ..UsageFigures::default() };
        let model = ModelTotals { model: model.into(), figures };
        DailyTotals { day, models: vec![model], saved: 1 }
    }

    #[test]
    fn a_count_that_knows_more_is_taken_and_nothing_is_counted_twice() {
        let mut today = of(100 * DAY, "fast", 5);
        let mut known = of(100 * DAY, "fast", 5);
        known.add(&of(100 * DAY, "fast", 6));
        known.add(&of(100 * DAY, "strong", 1));
        for _ in 0..2 {
            today.raise(&known);
            assert_eq!(today.models, known.models);
        }
        today.raise(&of(100 * DAY, "fast", 1));
        today.raise(&of(99 * DAY, "old", 1));
        assert_eq!(today.models, known.models);
        today.raise(&of(101 * DAY, "fast", 7));
        assert_eq!((today.day, today.models[0].figures.input), (101 * DAY, 7));
    }

    #[test]
    fn midnight_ends_the_day_and_what_comes_late_counts_in_its_own() {
        let mut today = of(100 * DAY, "fast", 5);
        today.add(&of(100 * DAY, "fast", 6));
        today.add(&of(100 * DAY, "strong", 1));
        assert_eq!((today.models.len(), today.models[0].figures.input, today.saved), (2, 11, 3));
        today.turn(UnixMs(101 * DAY - 1));
        assert_eq!(today.models.len(), 2);
        today.turn(UnixMs(101 * DAY));
        assert_eq!(today, DailyTotals { day: 101 * DAY, ..DailyTotals::default() });
        today.add(&of(100 * DAY, "fast", 6));
        assert!(today.models.is_empty());
        today.add(&of(102 * DAY, "fast", 7));
        assert_eq!((today.day, today.models[0].figures.input, today.saved), (102 * DAY, 7, 1));
    }

    #[test]
    fn a_clock_that_was_a_day_ahead_stops_no_count() {
        let mut today = of(102 * DAY, "fast", 5);
        today.turn(UnixMs(101 * DAY + DAY / 2));
        assert_eq!(today, DailyTotals { day: 101 * DAY, ..DailyTotals::default() });
        today.add(&of(101 * DAY, "fast", 6));
        assert_eq!(today.models[0].figures.input, 6);
        // A few seconds back over midnight cost nothing.
        let mut today = of(102 * DAY, "fast", 5);
        today.turn(UnixMs(102 * DAY - 7_000));
        today.add(&of(102 * DAY, "fast", 6));
        assert_eq!((today.day, today.models[0].figures.input), (102 * DAY, 11));
    }

    #[test]
    fn names_are_bounded() {
        let mut today = DailyTotals::default();
        for name in 0..2 * MODELS {
            today.add(&of(0, &format!("m{name}"), 1));
        }
        assert_eq!(today.models.len(), MODELS);
    }
}
