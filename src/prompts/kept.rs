//! What is the same in each request of a prompt, kept once it was needed.

use std::sync::OnceLock;

use super::weight::Weight;

/// The answer's schema and the tools, as an endpoint has them.
#[derive(Debug)]
pub struct FixedMembers {
    pub list: Vec<(&'static str, String)>,
    pub weight: Weight,
}

#[derive(Debug, Default)]
pub struct Kept {
    /// Of each endpoint.
    pub(super) fixed: [OnceLock<FixedMembers>; 4],
    pub(super) system: OnceLock<SystemWeights>,
}

/// What the system text weighs with each combination of words, as far as that was asked for.
#[derive(Debug, Default)]
pub(super) struct SystemWeights {
    /// The variables that stand in the text, and how many words each of them may be.
    pub(super) choices: Vec<(usize, usize)>,
    /// Empty where a value may be anything, or where there are too many combinations.
    pub(super) kept: Vec<OnceLock<Weight>>,
}
