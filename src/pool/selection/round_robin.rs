//! Weighted round robin that spreads a heavy key's turns evenly.
//!
//! The order is worked out once (the "smooth" algorithm: each step every key gains its weight, the
//! richest goes and pays the sum), then a request takes the next place with one atomic add.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};

/// Longest order kept; weights are scaled down to fit.
const LONGEST: usize = 4096;
/// Turns looked at for one selection; after that the order does not matter.
const LOOKS: usize = 64;

pub struct SmoothRoundRobin {
    backends: Vec<Backend>,
    /// Indices into `backends`, each as often as it weighs.
    order: Vec<u32>,
    turn: AtomicUsize,
}

impl BackendSelection for SmoothRoundRobin {
    type Iter = RoundRobinIter;
    type Config = ();

    fn build(backends: &BTreeSet<Backend>) -> Self {
        let backends: Vec<Backend> = backends.iter().cloned().collect();
        let weights: Vec<usize> = backends.iter().map(|backend| backend.weight).collect();
        Self { order: smooth_order(&weights), backends, turn: AtomicUsize::new(0) }
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> RoundRobinIter {
        RoundRobinIter { selection: self.clone(), step: 0, seen: BackendSet::default() }
    }
}

/// The backends in turn, each once. Every look takes a turn of its own, so that the turns of a key
/// that rests are spread over the others and don't all fall to its neighbour.
pub struct RoundRobinIter {
    selection: Arc<SmoothRoundRobin>,
    step: usize,
    seen: BackendSet,
}

/// A bit for each backend. The first 64 need no allocation: configurations rarely have more keys.
#[derive(Default)]
struct BackendSet {
    first: u64,
    more: Vec<u64>,
}

impl BackendSet {
    /// Whether it was not there.
    fn insert(&mut self, index: usize) -> bool {
        let bits = match (index / 64).checked_sub(1) {
            None => &mut self.first,
            Some(word) => {
                if self.more.len() <= word {
                    self.more.resize(word + 1, 0);
                }
                &mut self.more[word]
            }
        };
        let bit = 1 << (index % 64);
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }
}

impl BackendIter for RoundRobinIter {
    fn next(&mut self) -> Option<&Backend> {
        let order = &self.selection.order;
        while self.step < order.len().min(LOOKS) {
            let turn = self.selection.turn.fetch_add(1, Relaxed);
            let index = order[turn % order.len()] as usize;
            self.step += 1;
            if self.seen.insert(index) {
                return self.selection.backends.get(index);
            }
        }
        // Others took the turns that were missing: what was not seen yet comes in any order.
        let backends = &self.selection.backends;
        let unseen = (0..backends.len()).find(|index| self.seen.insert(*index))?;
        backends.get(unseen)
    }
}

fn smooth_order(weights: &[usize]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let sum: usize = weights.iter().map(|weight| weight / divisor).sum();
    let scale = sum.div_ceil(LONGEST).max(1);
    let weights: Vec<i64> =
        weights.iter().map(|weight| (weight / divisor / scale).max(1) as i64).collect();
    let sum: i64 = weights.iter().sum();
    let mut credit = vec![0i64; weights.len()];
    let mut order = Vec::with_capacity(sum as usize);
    for _ in 0..sum {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        let richest = (0..credit.len()).rev().max_by_key(|&index| credit[index]).unwrap_or(0);
        credit[richest] -= sum;
        order.push(richest as u32);
    }
    order
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heavy_key_does_not_take_its_turns_in_a_row() {
        assert_eq!(smooth_order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(smooth_order(&[2, 2]), [0, 1]);
        assert_eq!(smooth_order(&[7]), [0]);
        assert!(smooth_order(&[]).is_empty());
    }

    #[test]
    fn each_is_offered_once_however_many_there_are() {
        for many in [1, 3, 64, 65, 200] {
            let backends =
                (0..many).map(|n| Backend::new(&format!("127.0.0.1:{}", 1000 + n)).unwrap());
            let selection = Arc::new(SmoothRoundRobin::build(&backends.collect()));
            let (mut turn, mut offered) = (selection.iter(b""), BTreeSet::new());
            while let Some(backend) = turn.next() {
                assert!(offered.insert(backend.clone()), "twice");
            }
            assert_eq!(offered.len(), many);
        }
    }

    #[test]
    fn extreme_weights_keep_the_order_short() {
        let order = smooth_order(&[1_000_000, 1]);
        assert!(order.len() <= LONGEST + 1);
        assert!(order.contains(&1));
    }
}
