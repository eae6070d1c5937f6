//! Token counts of one answer. Output includes reasoning, input includes cached tokens.

use serde::{Deserialize, Serialize};

use super::vocabulary::Vocabulary;
use crate::meter::estimate::Estimate;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    /// Part of `input`.
    pub cached: u64,
    /// Part of `input`, too: written to the provider's cache.
    pub cache_write: u64,
    /// Part of `cache_write`: kept for an hour.
    pub cache_write_1h: u64,
    /// Part of `output`.
    pub reasoning: u64,
}

impl Usage {
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
pub enum Source {
    Reported,
    Estimated,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Source::Reported => "reported",
            Source::Estimated => "estimated",
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
    /// Visible output, by `meter::estimate`.
    pub output: Estimate,
}

impl Metered {
    /// Counts no less than `floor` did.
    pub fn raise_to(&mut self, floor: Metered, input_estimate: u64, vocabulary: Vocabulary) {
        let total = |metered: &Metered| metered.usage(input_estimate, vocabulary).0.total();
        if total(self) < total(&floor) {
            *self = floor;
        }
    }

    /// Reported usage wins; otherwise `input_estimate` plus the text seen so far.
    pub fn usage(&self, input_estimate: u64, vocabulary: Vocabulary) -> (Usage, Source) {
        match self.reported {
            Some(usage) => (usage, Source::Reported),
            None => {
                let output = self.output.tokens(vocabulary);
                let estimated = Usage { input: input_estimate, ..Usage::default() };
                (Usage { output, ..self.input.unwrap_or(estimated) }, Source::Estimated)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_raised_and_never_lowered() {
        let text = Metered { output: Estimate::of_tokens(5), ..Metered::default() };
        let report = |output| Usage { input: 0, output, ..Usage::default() };
        for (reported, charged) in [(3, 15), (15, 15), (40, 40)] {
            let mut metered = Metered { reported: Some(report(reported)), ..text };
            metered.raise_to(text, 10, Vocabulary::O200k);
            assert_eq!(metered.usage(10, Vocabulary::O200k).0.total(), charged);
        }
    }
}
