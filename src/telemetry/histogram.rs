//! Histogram of durations with a fixed number of buckets: eight per octave, so that a quantile is off by a
//! few per cent at most. Recording needs no allocation and no floating point.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Below 8 each value has a bucket; above, every power of two has eight.
const BUCKETS: usize = 152;
/// What is larger counts as this: half an hour in milliseconds, two seconds in microseconds.
const MOST: u64 = (1 << 21) - 1;

/// Counts by size; the unit is its owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram([u32; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

fn bucket(value: u64) -> usize {
    let value = value.min(MOST);
    if value < 8 {
        return value as usize;
    }
    let octave = 63 - value.leading_zeros() as usize;
    (octave - 2) * 8 + (value >> (octave - 3) & 7) as usize
}

/// The smallest value of a bucket, and how many values it has.
fn bounds(bucket: usize) -> (u64, u64) {
    match (bucket as u64).checked_sub(8) {
        None => (bucket as u64, 1),
        Some(above) => {
            let shift = above / 8;
            ((8 + above % 8) << shift, 1 << shift)
        }
    }
}

impl Histogram {
    pub fn observe(&mut self, value: u64) {
        if let Some(count) = self.0.get_mut(bucket(value)) {
            *count = count.saturating_add(1);
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// The value that this share of all are below; `None` of nothing.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((share * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut before = 0;
        for (bucket, here) in self.0.iter().enumerate().filter(|(_, here)| **here > 0) {
            let here = u64::from(*here);
            if before + here >= rank {
                let (least, width) = bounds(bucket);
                // Those of a bucket lie about evenly in it.
                let place = (rank - before) as f64 - 0.5;
                let value = least as f64 + (width - 1) as f64 * place / here as f64;
                return Some((value * 10.0).round() / 10.0);
            }
            before += here;
        }
        None
    }
}

/// As bucket and count by turns, without empty ones.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let full = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        serializer.collect_seq(full.flat_map(|(bucket, count)| [bucket as u32, *count]))
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut histogram = Self::default();
        for pair in Vec::<u32>::deserialize(deserializer)?.chunks_exact(2) {
            // A bucket that another version has is left out.
            if let Some(count) = histogram.0.get_mut(pair[0] as usize) {
                *count = pair[1];
            }
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_largest_in_the_last() {
        for value in (0..5_000).chain([65_535, 65_536, 1_000_000, MOST]) {
            let (least, width) = bounds(bucket(value));
            assert!((least..least + width).contains(&value), "{value}: {least} + {width}");
        }
        assert_eq!(bucket(MOST), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_off_by_a_few_per_cent_at_most() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for value in 1..=10_000 {
            histogram.observe(value);
        }
        for (share, real) in [(0.01, 100.0), (0.5, 5_000.0), (0.95, 9_500.0), (1.0, 10_000.0)] {
            let estimate = histogram.quantile(share).unwrap();
            assert!((estimate / real - 1.0).abs() < 0.05, "{share}: {estimate} for {real}");
        }
        let mut one = Histogram::default();
        one.observe(7);
        assert_eq!((one.quantile(0.0), one.quantile(0.95)), (Some(7.0), Some(7.0)));
    }

    #[test]
    fn it_is_added_up_and_survives_being_told() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.observe(5);
        other.observe(5);
        other.observe(900);
        one.add(&other);
        assert_eq!(one.count(), 3);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), one);
        let foreign = serde_json::from_str::<Histogram>("[9999, 3, 5]").unwrap();
        assert_eq!(foreign, Histogram::default());
    }
}
