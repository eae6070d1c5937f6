//! What tokens cost: whole picodollars, so that any sum of costs is exact.

use super::usage::Usage;

/// Picodollars of one dollar.
pub const DOLLAR: u64 = 1_000_000_000_000;

/// Picodollars that a provider asks for each token of a model. A dollar per million tokens is
/// 1,000,000 picodollars per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub input: u64,
    pub output: u64,
    /// Of an input token that the provider had cached.
    pub cached: u64,
    /// Of an input token that was written to its cache.
    pub cache_write: u64,
    /// The same, kept for an hour.
    pub cache_write_1h: u64,
}

impl Price {
    /// Picodollars of an answer. More cached tokens than input is a provider's slip: all were cached.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let cached = usage.cached.min(usage.input);
        let new = usage.input - cached;
        let written = usage.cache_write.min(new);
        let hour = usage.cache_write_1h.min(written);
        let parts = [
            (new - written, self.input),
            (written - hour, self.cache_write),
            (hour, self.cache_write_1h),
            (cached, self.cached),
            (usage.output, self.output),
        ];
        parts
            .iter()
            .fold(0, |sum: u64, (tokens, price)| sum.saturating_add(tokens.saturating_mul(*price)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRICE: Price = Price {
        input: 50_000,
        output: 80_000,
        cached: 25_000,
        cache_write: 62_500,
        cache_write_1h: 100_000,
    };

    fn usage(input: u64, cached: u64, output: u64) -> Usage {
        Usage { input, cached, output, ..Usage::default() }
    }

    #[test]
    fn cached_tokens_have_their_own_price() {
        assert_eq!(PRICE.cost(&usage(0, 0, 0)), 0);
        assert_eq!(PRICE.cost(&usage(1_000_000, 0, 0)), DOLLAR / 20);
        assert_eq!(PRICE.cost(&usage(11, 0, 7)), 11 * 50_000 + 7 * 80_000);
        assert_eq!(PRICE.cost(&usage(11, 4, 7)), 7 * 50_000 + 4 * 25_000 + 7 * 80_000);
        assert_eq!(PRICE.cost(&usage(11, 99, 0)), 11 * 25_000);
    }

    #[test]
    fn what_is_written_to_the_cache_has_prices_of_its_own() {
        let usage = |cached, cache_write, cache_write_1h| Usage {
            input: 100,
            cached,
            cache_write,
            cache_write_1h,
            ..Usage::default()
        };
        assert_eq!(PRICE.cost(&usage(0, 60, 0)), 40 * 50_000 + 60 * 62_500);
        assert_eq!(
            PRICE.cost(&usage(10, 60, 20)),
            30 * 50_000 + 40 * 62_500 + 20 * 100_000 + 10 * 25_000
        );
        assert_eq!(
            PRICE.cost(&usage(90, 60, 99)),
            90 * 25_000 + 10 * 100_000,
            "never more than there is"
        );
    }

    #[test]
    fn nonsense_costs_a_lot_and_wraps_nowhere() {
        assert_eq!(PRICE.cost(&usage(u64::MAX, 0, u64::MAX)), u64::MAX);
        assert_eq!(PRICE.cost(&usage(u64::MAX, u64::MAX, 0)), u64::MAX);
    }

    proptest! {
        #[test]
        fn many_answers_cost_what_their_tokens_cost_together(
            answers in prop::collection::vec((0..1_u64 << 20, 0..1_u64 << 20, 0..1_u64 << 20), 0..50),
            (input, output, cached) in (0..1_u64 << 30, 0..1_u64 << 30, 0..1_u64 << 30),
        ) {
            let price = Price { input, output, cached, cache_write: input, cache_write_1h: input };
            let answers: Vec<_> =
                answers.into_iter().map(|(new, cached, output)| usage(new + cached, cached, output)).collect();
            let each: u128 = answers.iter().map(|answer| u128::from(price.cost(answer))).sum();
            let sum = |of: fn(&Usage) -> u64| answers.iter().map(of).sum::<u64>();
            let whole = usage(sum(|u| u.input), sum(|u| u.cached), sum(|u| u.output));
            prop_assert_eq!(each, u128::from(price.cost(&whole)));
        }
    }
}
