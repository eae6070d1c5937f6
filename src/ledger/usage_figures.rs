//! The figures that are added up by day: the one list of them, for the journal's batches, the table `daily`, the rows
//! on Redis and `gatekeeper usage`. A figure that is added here is added, stored, merged and sent everywhere; add it
//! at the end, and its column to `schema.sql`.

macro_rules! usage_figures {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What was used: sums over requests.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

usage_figures! {
    /// All that ended, whatever became of them.
    requests,
    /// As they were charged: requests that share a message id are one, those that gave it back none.
    messages,
    input,
    output,
    /// Part of `input`.
    cached,
    /// Picodollars, waste included.
    cost,
    /// Part of `input`.
    cache_write,
    /// Tokens of attempts whose answers no app got, beside `input` and `output`.
    wasted,
    /// Picodollars; part of `cost`.
    wasted_cost,
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
