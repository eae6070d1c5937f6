//! An estimated number of tokens.

use std::{
    iter::Sum,
    ops::{Add, AddAssign},
};

use super::Vocabulary;

/// An estimate under both families, in thousandths of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    pub o200k: u64,
    pub cl100k: u64,
}

impl Estimate {
    /// So many tokens, whatever the vocabulary.
    pub const fn of_tokens(tokens: u64) -> Self {
        Self::of_millitokens(tokens.saturating_mul(1000))
    }

    /// The same in thousandths.
    pub const fn of_millitokens(millitokens: u64) -> Self {
        Self { o200k: millitokens, cl100k: millitokens }
    }

    /// Thousandths of a token.
    pub fn millitokens(self, vocabulary: Vocabulary) -> u64 {
        match vocabulary {
            Vocabulary::O200k => self.o200k,
            Vocabulary::Cl100k => self.cl100k,
            Vocabulary::Unknown => self.o200k.max(self.cl100k),
        }
    }

    /// Rounded up to whole tokens.
    pub fn tokens(self, vocabulary: Vocabulary) -> u64 {
        self.millitokens(vocabulary).div_ceil(1000)
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { o200k: self.o200k.max(other.o200k), cl100k: self.cl100k.max(other.cl100k) }
    }

    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl Add for Estimate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            o200k: self.o200k.saturating_add(other.o200k),
            cl100k: self.cl100k.saturating_add(other.cl100k),
        }
    }
}

impl AddAssign for Estimate {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Estimate {
    fn sum<I: Iterator<Item = Self>>(estimates: I) -> Self {
        estimates.fold(Self::default(), Add::add)
    }
}
