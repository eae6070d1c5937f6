//! Token counts of one answer. Output includes reasoning, input includes cached tokens.

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::vocabulary::Vocabulary;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    /// Part of `input`.
    pub cached: u64,
    /// Part of `input`: tokens that the provider wrote into its cache, for whatever time.
    pub cache_write: u64,
    /// Part of `cache_write`: those that it keeps for an hour.
    pub cache_write_1h: u64,
    /// Part of `output`.
    pub reasoning: u64,
}

impl Usage {
    /// Nothing but an input.
    pub fn of_input(input: u64) -> Self {
        Self { input, ..Self::default() }
    }

    /// Adds up two answers.
    pub fn add(&mut self, more: &Self) {
        for (to, from) in [
            (&mut self.input, more.input),
            (&mut self.output, more.output),
            (&mut self.cached, more.cached),
            (&mut self.cache_write, more.cache_write),
            (&mut self.cache_write_1h, more.cache_write_1h),
            (&mut self.reasoning, more.reasoning),
        ] {
            *to = to.saturating_add(from);
        }
    }

    /// What counts against a token limit.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// At most so much of each; the parts shrink with what they are part of.
    #[must_use]
    pub fn within(self, input: u64, output: u64) -> Self {
        let (input, output) = (self.input.min(input), self.output.min(output));
        let cached = self.cached.min(input);
        let cache_write = self.cache_write.min(input - cached);
        let cache_write_1h = self.cache_write_1h.min(cache_write);
        let reasoning = self.reasoning.min(output);
        Self { input, output, cached, cache_write, cache_write_1h, reasoning }
    }
}

/// Whose count a charge rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UsageSource {
    Reported,
    Estimated,
}

impl UsageSource {
    pub fn name(self) -> &'static str {
        match self {
            UsageSource::Reported => "reported",
            UsageSource::Estimated => "estimated",
        }
    }
}

/// What an answer has shown so far; the meter folds readings into it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metered {
    /// The provider's last word. Later values overwrite, they are never added.
    pub reported: Option<Usage>,
    /// Its count of the input, while that of the output is not there yet.
    pub input: Option<Usage>,
    /// Its count of both together, where it reported nothing else.
    pub total: Option<u64>,
    /// Visible output since its last count, by `meter::estimate`.
    pub output_millitokens: Estimate,
    /// The same of all output that was weighed.
    pub seen_millitokens: Estimate,
    /// Estimate of the undelivered output, in tokens: of an answer that was cut off.
    pub unseen: u64,
    /// That of the target: which of both estimates counts.
    pub vocabulary: Vocabulary,
}

impl Metered {
    /// Counts no less than `floor` did.
    pub fn raise_to(&mut self, floor: Metered, input_estimate: u64) {
        let total = |metered: &Metered| metered.usage(input_estimate).0.total();
        if total(self) < total(&floor) {
            *self = floor;
        }
    }

    /// The provider's count, if it is one: none of nought counts where there was text.
    pub fn counted(&self) -> Option<Usage> {
        self.reported.filter(|usage| usage.output > 0 || self.seen_millitokens.is_zero())
    }

    /// Whether the provider counted the whole of it, up to the last word.
    pub fn is_counted_whole(&self) -> bool {
        self.counted().is_some_and(|usage| usage.input > 0) && self.output_millitokens.is_zero()
    }

    /// Reported usage wins, and text that came after it is added by estimate; otherwise `input_estimate`,
    /// where the input was not reported, plus the text read so far and the estimate of undelivered output.
    pub fn usage(&self, input_estimate: u64) -> (Usage, UsageSource) {
        let late = self.output_millitokens.tokens(self.vocabulary);
        let source = if late == 0 { UsageSource::Reported } else { UsageSource::Estimated };
        match (self.counted(), self.total.filter(|total| *total > 0)) {
            // An input of nought beside an output is no count of the input.
            (Some(usage), _) if usage.input == 0 && usage.output > 0 => {
                let output = usage.output.saturating_add(late);
                (Usage { input: input_estimate, output, ..usage }, source)
            }
            (Some(usage), _) => {
                (Usage { output: usage.output.saturating_add(late), ..usage }, source)
            }
            (None, Some(total)) => {
                let known = self.known_input().unwrap_or_else(|| Usage::of_input(input_estimate));
                let input = known.input.min(total);
                let output = (total - input).saturating_add(late);
                (Usage { input, output, ..known }, source)
            }
            (None, None) => {
                let known = self.known_input().unwrap_or_else(|| Usage::of_input(input_estimate));
                let seen = self.seen_millitokens.tokens(self.vocabulary);
                let output = seen.saturating_add(self.unseen);
                (Usage { output, reasoning: 0, ..known }, UsageSource::Estimated)
            }
        }
    }

    /// The reported input, whether or not the output was reported.
    fn known_input(&self) -> Option<Usage> {
        let placeholder = self.reported.filter(|usage| usage.input > 0);
        self.input.or(placeholder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(millitokens: u64) -> Metered {
        let estimate = Estimate::of_tokens(millitokens / 1000);
        let (output_millitokens, seen_millitokens) = (estimate, estimate);
        Metered { output_millitokens, seen_millitokens, ..Metered::default() }
    }

    #[test]
    fn a_count_is_raised_and_never_lowered() {
        let text = seen(5_000);
        let report = |output| Usage { input: 0, output, ..Usage::default() };
        for (reported, charged) in [(3, 15), (15, 25), (40, 50)] {
            let reported = Some(report(reported));
            let mut metered = Metered { reported, output_millitokens: Estimate::default(), ..text };
            metered.raise_to(text, 10);
            assert_eq!(metered.usage(10).0.total(), charged);
        }
    }

    #[test]
    fn a_count_is_believed_as_far_as_it_says_something() {
        let count = |input, output| Some(Usage { input, output, ..Usage::default() });
        let text = seen(5_000);
        let whole = Metered { output_millitokens: Estimate::default(), ..text };
        for (metered, tokens, source) in [
            // Reported to the end; with text after the count; a nought beside text; nothing but noughts.
            (Metered { reported: count(20, 7), ..whole }, (20, 7), UsageSource::Reported),
            (Metered { reported: count(20, 7), ..text }, (20, 12), UsageSource::Estimated),
            (Metered { reported: count(20, 0), ..whole }, (20, 5), UsageSource::Estimated),
            (Metered { reported: count(0, 0), ..whole }, (10, 5), UsageSource::Estimated),
            (Metered { reported: count(0, 7), ..whole }, (10, 7), UsageSource::Reported),
            // An answer without a word that costs nothing.
            (
                Metered { reported: count(0, 0), ..Metered::default() },
                (0, 0),
                UsageSource::Reported,
            ),
            (
                Metered { reported: count(9, 0), ..Metered::default() },
                (9, 0),
                UsageSource::Reported,
            ),
            // The total alone.
            (Metered { total: Some(500), ..whole }, (10, 490), UsageSource::Reported),
            (
                Metered { total: Some(500), input: count(30, 0), ..whole },
                (30, 470),
                UsageSource::Reported,
            ),
            (Metered { total: Some(500), ..text }, (10, 495), UsageSource::Estimated),
            (Metered { total: Some(3), ..whole }, (3, 0), UsageSource::Reported),
            (Metered { total: Some(0), ..whole }, (10, 5), UsageSource::Estimated),
            // Cut off: undelivered output is added, but not to a count that includes it.
            (Metered { unseen: 90, ..text }, (10, 95), UsageSource::Estimated),
            (
                Metered { unseen: 90, input: count(40_016, 0), ..text },
                (40_016, 95),
                UsageSource::Estimated,
            ),
            (
                Metered { unseen: 90, reported: count(20, 7), ..text },
                (20, 12),
                UsageSource::Estimated,
            ),
        ] {
            let (usage, said) = metered.usage(10);
            assert_eq!(((usage.input, usage.output), said), (tokens, source), "{metered:?}");
        }
    }
}
