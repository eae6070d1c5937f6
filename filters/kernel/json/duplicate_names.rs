//! Whether an object has two members of one name, in time linear in its text.

use std::hash::{BuildHasher, RandomState};

use super::{node::Node, value::Name};

/// The names of objects up to this size are compared pair by pair, those of larger ones by hash.
const PAIRWISE: usize = 16;

/// Which names an object may already hold: one bit for each of 128 hashes, so that most objects
/// are known to have no duplicates without comparing two names.
#[derive(Default)]
pub(super) struct Seen {
    bits: u128,
    suspicious: bool,
    members: usize,
}

impl Seen {
    pub(super) fn add(&mut self, raw: &[u8], escaped: bool) {
        let byte = |at: usize| usize::from(raw.get(at).copied().unwrap_or(0));
        let last = byte(raw.len().wrapping_sub(1));
        let hash = raw.len() * 29 + byte(0) * 7 + byte(raw.len() / 2) * 3 + last;
        let bit = 1u128 << (hash & 127);
        self.suspicious |= escaped || self.bits & bit != 0;
        self.bits |= bit;
        self.members += 1;
    }

    /// Where the second of two equal names stands, its quote included. `nodes` are those of all
    /// members, the first one's name first.
    pub(super) fn double(
        &self,
        source: &[u8],
        nodes: &[Node],
        hashes: &mut Vec<(u64, u32)>,
    ) -> Option<usize> {
        if !self.suspicious {
            return None;
        }
        let names = Names { source, nodes };
        let name = if self.members <= PAIRWISE {
            names.double_in_pairs()
        } else {
            hashes.clear();
            hashes.reserve_exact(self.members);
            names.double_by_hash(hashes)
        };
        name.map(|name| name.raw_span().start - 1)
    }
}

#[derive(Clone, Copy)]
struct Names<'a> {
    source: &'a [u8],
    nodes: &'a [Node],
}

impl<'a> Names<'a> {
    fn at(self, index: usize) -> Name<'a> {
        Name::new(self.source, self.nodes[index])
    }

    /// The indices of all names.
    fn all(self) -> impl Iterator<Item = usize> {
        // Links count from the first node of the whole text.
        let first = self.nodes.first().map_or(0, |node| node.next() - 1);
        let mut index = 0;
        std::iter::from_fn(move || {
            let value = self.nodes.get(index + 1)?;
            Some(std::mem::replace(&mut index, value.next() - first))
        })
    }

    fn double_in_pairs(self) -> Option<Name<'a>> {
        self.all()
            .map(|later| (later, self.at(later)))
            .find(|(later, name)| {
                self.all().take_while(|index| index < later).any(|it| self.at(it).same(name))
            })
            .map(|(_, name)| name)
    }

    /// Sorts the names by a hash under a random key, so collisions cannot be forced: a body full of names
    /// costs hardly more time than any other.
    fn double_by_hash(self, hashes: &mut Vec<(u64, u32)>) -> Option<Name<'a>> {
        let hasher = RandomState::new();
        let hash = |index| hasher.hash_one(self.at(index).decoded().as_bytes());
        hashes.extend(self.all().map(|index| (hash(index), index as u32)));
        hashes.sort_unstable();
        hashes
            .windows(2)
            .filter(|pair| pair[0].0 == pair[1].0)
            .map(|pair| (self.at(pair[0].1 as usize), self.at(pair[1].1 as usize)))
            .filter(|(earlier, later)| earlier.same(later))
            .map(|(_, later)| later)
            .min_by_key(|later| later.raw_span().start)
    }
}
