//! The table of weights: what `training.rs` learned from the prompts of `prompts/tuning`.
//!
//! `weights.bin` holds, in little endian: eight bytes that identify the training data, a weight for each
//! feature, the bias, the unit of a term's weight, then one signed byte for each bucket of terms.

use super::hashed_terms::BUCKETS;

/// Where the numbers begin.
pub const FIRST: usize = 8;
/// Signals that are weighed beside the terms.
pub const SIGNALS: usize = 13;
/// Where the buckets begin.
pub const TERMS: usize = FIRST + 4 * (SIGNALS + 2);

pub static TABLE: &[u8; TERMS + BUCKETS] = include_bytes!("weights.bin");

const BIAS: usize = SIGNALS;
const UNIT: usize = SIGNALS + 1;
const NUMBERS: [f32; SIGNALS + 2] = {
    let mut numbers = [0.0; SIGNALS + 2];
    let mut index = 0;
    while index < numbers.len() {
        let at = FIRST + 4 * index;
        let bytes = [TABLE[at], TABLE[at + 1], TABLE[at + 2], TABLE[at + 3]];
        numbers[index] = f32::from_le_bytes(bytes);
        index += 1;
    }
    numbers
};

/// In units; `bucket` is below [`BUCKETS`].
#[inline]
pub fn of_term(bucket: usize) -> i32 {
    i32::from(TABLE[TERMS + bucket % BUCKETS].cast_signed())
}

/// `sum` of the weights of `count` terms. Many terms add up to more evidence than few, but not as
/// many times more: a long text repeats itself.
pub fn evidence(signals: &[f32; SIGNALS], sum: i32, count: u32) -> f32 {
    let signals: f32 = signals.iter().zip(NUMBERS).map(|(signal, weight)| signal * weight).sum();
    signals + NUMBERS[BIAS] + NUMBERS[UNIT] * sum as f32 * scale(count)
}

/// What one of so many terms counts.
pub fn scale(count: u32) -> f32 {
    1.0 / (count.max(1) as f32).sqrt()
}
