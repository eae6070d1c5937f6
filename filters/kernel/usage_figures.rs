//! The figures of usage: the one list of them, for the journal's batches, the table `daily`, the rows on Redis,
//! `gatekeeper usage`, the live view and its time series. A figure that is added here is added, stored, merged and
//! sent everywhere; add it at the end, and its column to `schema.sql`.

use serde::{Deserialize, Serialize};

use super::ports::Record;

macro_rules! usage_figures {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What was used: sums over requests.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct UsageFigures {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl UsageFigures {
            /// The names of the figures, which are the columns of `daily`, in their order on Redis.
            pub const NAMES: [&'static str; [$(stringify!($name)),+].len()] =
                [$(stringify!($name)),+];

            /// In the order of [`UsageFigures::NAMES`].
            pub fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$name),+]
            }

            /// Figures that are missing at the end, as in rows of an older version, are 0.
            pub fn of_values(values: impl IntoIterator<Item = u64>) -> Self {
                let mut values = values.into_iter();
                Self { $($name: values.next().unwrap_or(0),)+ }
            }

            pub fn add(&mut self, more: &Self) {
                $(self.$name = self.$name.saturating_add(more.$name);)+
            }
        }
    };
}

// Earlier versions need every figure without `skip_serializing_if`, and know none of the others.
usage_figures! {
    /// All that ended, whatever became of them.
    requests,
    /// As they were charged: requests that share a message id are one, those that gave it back none.
    #[serde(skip_serializing_if = "is_zero")]
    messages,
    input,
    output,
    /// Part of `input`.
    cached,
    /// Picodollars, waste included.
    cost,
    /// Part of `input`.
    #[serde(skip_serializing_if = "is_zero")]
    cache_write,
    /// Tokens of attempts whose answers no app got, beside `input` and `output`.
    #[serde(skip_serializing_if = "is_zero")]
    wasted,
    /// Picodollars; part of `cost`.
    #[serde(skip_serializing_if = "is_zero")]
    wasted_cost,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(figure: &u64) -> bool {
    *figure == 0
}

impl UsageFigures {
    /// One finished request. Its message is counted where its reservation is settled.
    pub fn of_request(record: &Record) -> Self {
        let Record { usage, .. } = record;
        Self {
            requests: 1,
            messages: 0,
            input: usage.input,
            output: usage.output,
            cached: usage.cached,
            cost: record.cost,
            cache_write: usage.cache_write,
            wasted: record.wasted,
            wasted_cost: record.wasted_cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_an_older_version_have_fewer_figures() {
        let figures = UsageFigures { requests: 1, cost: 6, wasted_cost: 9, ..Default::default() };
        assert_eq!(UsageFigures::of_values(figures.values()), figures);
        let older = UsageFigures::of_values([7, 6, 5, 4, 3, 2]);
        assert_eq!((older.requests, older.cost, older.wasted), (7, 2, 0));
        let mut sum = UsageFigures { input: u64::MAX, ..figures };
        sum.add(&UsageFigures { input: 1, requests: 2, ..Default::default() });
        assert_eq!((sum.input, sum.requests, sum.cost), (u64::MAX, 3, 6));
    }
}
