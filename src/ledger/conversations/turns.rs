//! Last turns of users that come again: hashes with their age and how often each came.
//!
//! Exact counts of a hundred different turns do not fit into the bytes of a conversation: 22 bits of hash, so that one
//! in four million is taken for another, and 10 of age are 400 bytes. So eight are counted there, and what goes
//! beyond them only as long as it counts: [`FurtherTurns`] are gone ten minutes later.

use serde::{Deserialize, Serialize};

/// How long a turn counts as the same one, from its first time on, in seconds.
pub const SAME_TURN: u32 = 600;
/// Turns of a conversation beside those in its counts. Beyond them one of those that came least often is dropped.
const FURTHER: usize = 500;
/// Bits of a turn's age in its place, in seconds up to [`SAME_TURN`]; the others are of its hash.
const AGE_BITS: u32 = 10;

/// Turns that have no place in the counts of their conversation; 5 bytes each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherTurns {
    /// The time that ages refer to, in seconds since 1970.
    touched: u32,
    turns: Vec<u32>,
    times: Vec<u8>,
}

/// Turns in their places: hash and age, and how often each came (0 for a place that is free).
#[derive(Debug, Clone, Copy)]
pub struct TurnList<'a> {
    pub touched: u32,
    pub turns: &'a [u32],
    pub times: &'a [u8],
}

/// The same, to be changed.
#[derive(Debug)]
pub struct TurnListMut<'a> {
    pub touched: &'a mut u32,
    pub turns: &'a mut [u32],
    pub times: &'a mut [u8],
}

/// A turn that came before and still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownTurn {
    pub times: u32,
    /// In seconds since 1970.
    pub first: u32,
}

/// As much of a turn as stands beside its age.
fn hashed(turn: u32) -> u32 {
    turn & (u32::MAX >> AGE_BITS)
}

fn age(place: u32) -> u32 {
    place & ((1 << AGE_BITS) - 1)
}

impl TurnList<'_> {
    /// The place of a turn that still counts at `now`.
    fn place(&self, turn: u32, now: u32) -> Option<usize> {
        let passed = now.saturating_sub(self.touched);
        let mut places = self.turns.iter().zip(self.times);
        places.position(|(place, times)| {
            let is_same = *times > 0 && place >> AGE_BITS == hashed(turn);
            is_same && age(*place).saturating_add(passed) < SAME_TURN
        })
    }

    pub fn known(&self, turn: u32, now: u32) -> Option<KnownTurn> {
        let at = self.place(turn, now)?;
        let first = self.touched.saturating_sub(age(self.turns[at]));
        Some(KnownTurn { times: u32::from(self.times[at]), first })
    }
}

impl TurnListMut<'_> {
    fn list(&self) -> TurnList<'_> {
        TurnList { touched: *self.touched, turns: self.turns, times: self.times }
    }

    /// Moves to `now`; places of turns that count no more are free.
    pub fn grow_older(&mut self, now: u32) {
        let passed = now.saturating_sub(*self.touched);
        for (place, times) in self.turns.iter_mut().zip(&mut *self.times) {
            if *times == 0 || age(*place).saturating_add(passed) >= SAME_TURN {
                (*place, *times) = (0, 0);
            } else {
                *place += passed;
            }
        }
        *self.touched = now;
    }

    /// Counts a turn that has a place; whether it has one.
    pub fn again(&mut self, turn: u32) -> bool {
        let at = self.list().place(turn, *self.touched);
        at.inspect(|at| self.times[*at] = self.times[*at].saturating_add(1)).is_some()
    }

    /// Counts a turn for the first time; whether a place is free.
    pub fn begin(&mut self, turn: u32) -> bool {
        let free = self.times.iter().position(|times| *times == 0);
        free.inspect(|at| self.put(*at, turn)).is_some()
    }

    fn put(&mut self, at: usize, turn: u32) {
        (self.turns[at], self.times[at]) = (hashed(turn) << AGE_BITS, 1);
    }

    /// Counts a turn in the place of one that came least often.
    fn displace(&mut self, turn: u32) {
        let fewest = self.times.iter().copied().min().unwrap_or_default();
        let rare = || (0..self.times.len()).filter(|at| self.times[*at] == fewest);
        // Any of them, so that no loop finds its turns gone each time: by a multiplicative hash (Knuth, 6.4) of
        // what came when.
        let mixed = ((hashed(turn).wrapping_add(*self.touched) & 0xFFFF) * 40_503) & 0xFFFF;
        let nth = (mixed as usize * rare().count()) >> 16;
        let at = rare().nth(nth);
        if let Some(at) = at {
            self.put(at, turn);
        }
    }

    /// Takes back one time of a turn that was counted at `at`; whether it is here.
    pub fn give_back(&mut self, turn: u32, at: u32) -> bool {
        // What began later than it was counted has it not.
        let since = self.touched.saturating_sub(at);
        let place = self.list().place(turn, *self.touched);
        let place = place.filter(|place| age(self.turns[*place]) >= since);
        place.inspect(|place| self.times[*place] -= 1).is_some()
    }
}

impl FurtherTurns {
    pub fn list(&self) -> TurnList<'_> {
        TurnList { touched: self.touched, turns: &self.turns, times: &self.times }
    }

    pub fn list_mut(&mut self) -> TurnListMut<'_> {
        TurnListMut { touched: &mut self.touched, turns: &mut self.turns, times: &mut self.times }
    }

    /// Counts a turn; the list is as of now.
    pub fn count(&mut self, turn: u32) {
        let mut list = self.list_mut();
        if list.again(turn) || list.begin(turn) {
            return;
        }
        if self.turns.len() >= FURTHER {
            self.list_mut().displace(turn);
            return;
        }
        self.turns.push(hashed(turn) << AGE_BITS);
        self.times.push(1);
    }

    /// Whether any of them may count at `now`.
    pub fn is_live(&self, now: u32) -> bool {
        now.saturating_sub(self.touched) < SAME_TURN
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        4 + self.turns.len() * 5
    }
}
