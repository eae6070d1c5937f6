//! The terms of a text: words, their first four letters, pairs of neighbours, and stretches of
//! letters, which stand for roots and endings; of scripts without spaces, up to three characters in a
//! row. A term is known by its bucket alone. Terms that share one share its weight.

use super::keywords::is_unspaced;

pub const BUCKETS: usize = 1 << 16;

/// What stands before the first word and after the last one.
const EDGE: u64 = 1;
/// What stands between a word and a stretch of characters without spaces.
const UNSPACED: u64 = 2;
/// Characters of a stem, with the space before it.
const STEM: u32 = 5;
/// Digits of a number that count.
const DIGITS: u32 = 4;

#[derive(Clone, Copy)]
enum Kind {
    Word = 1,
    Pair,
    Stem,
    Letters,
    Unspaced,
}

/// The last four characters, sixteen bits each.
const FOUR: u64 = u64::MAX;
const THREE: u64 = FOUR >> 16;
const TWO: u64 = FOUR >> 32;
const ONE: u64 = FOUR >> 48;

/// Odd, its bits like chance.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

#[inline]
fn mix(value: u64) -> u64 {
    let mixed = value.wrapping_mul(SPREAD);
    mixed ^ (mixed >> 32)
}

/// Calls `each` with the bucket of each term of a folded text.
pub fn each(folded: &str, each: impl FnMut(usize)) {
    let mut terms = Terms::new(each);
    folded.chars().for_each(|character| terms.push(character));
    terms.finish();
}

struct Terms<F> {
    each: F,
    recent: u64,
    /// Characters in `recent`, of this word or stretch.
    length: u32,
    digits: u32,
    word: u64,
    /// The word's beginning.
    stem: u64,
    previous: u64,
    unspaced: bool,
}

impl<F: FnMut(usize)> Terms<F> {
    fn new(each: F) -> Self {
        Self {
            each,
            recent: 0,
            length: 0,
            digits: 0,
            word: 0,
            stem: 0,
            previous: EDGE,
            unspaced: false,
        }
    }

    #[inline]
    fn tell(&mut self, kind: Kind, value: u64) {
        let hash = mix(value ^ (kind as u64) << 61);
        (self.each)((hash.wrapping_mul(SPREAD) >> 48) as usize % BUCKETS);
    }

    #[inline]
    fn push(&mut self, character: char) {
        if character == ' ' {
            self.end_of_word();
        } else if !character.is_ascii() && is_unspaced(character) {
            self.push_unspaced(character);
        } else {
            self.push_letter(character);
        }
    }

    #[inline]
    fn push_letter(&mut self, character: char) {
        if self.unspaced {
            self.end_of_word();
        }
        // That it is a number matters more than which one.
        let character = if character.is_ascii_digit() {
            self.digits += 1;
            if self.digits > DIGITS {
                return;
            }
            '#'
        } else {
            self.digits = 0;
            character
        };
        if self.length == 0 {
            (self.recent, self.length) = (u64::from(' '), 1);
        }
        self.word = mix(self.word ^ u64::from(character));
        self.shift(character);
        if self.length <= STEM {
            self.stem = self.word;
        }
        if self.length >= 4 {
            self.tell(Kind::Letters, self.recent);
        }
    }

    fn push_unspaced(&mut self, character: char) {
        if !self.unspaced {
            self.end_of_word();
            self.unspaced = true;
        }
        self.shift(character);
        for (length, mask) in [(1, ONE), (2, TWO), (3, THREE)] {
            if self.length >= length {
                self.tell(Kind::Unspaced, self.recent & mask);
            }
        }
    }

    #[inline]
    fn shift(&mut self, character: char) {
        self.recent = self.recent << 16 | (u64::from(character) & ONE);
        self.length += 1;
    }

    fn end_of_word(&mut self) {
        if self.length == 0 {
            return;
        }
        if self.unspaced {
            self.previous = UNSPACED;
        } else {
            self.shift(' ');
            self.tell(Kind::Letters, self.recent);
            self.tell(Kind::Word, self.word);
            self.tell(Kind::Stem, self.stem);
            self.pair(self.word);
            self.previous = self.word;
        }
        (self.recent, self.length, self.digits, self.word, self.stem) = (0, 0, 0, 0, 0);
        self.unspaced = false;
    }

    #[inline]
    fn pair(&mut self, word: u64) {
        self.tell(Kind::Pair, self.previous.rotate_left(23) ^ word);
    }

    fn finish(mut self) {
        self.end_of_word();
        self.pair(EDGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<usize> {
        let mut found = Vec::new();
        each(text, |bucket| found.push(bucket));
        found
    }

    fn shared(one: &str, other: &str) -> usize {
        let other = terms(other);
        terms(one).iter().filter(|term| other.contains(term)).count()
    }

    #[test]
    fn words_have_letters_a_neighbour_and_themselves() {
        assert_eq!(terms("").len(), 1);
        // " why", "why ", the word, its stem, and the pairs with the edges on both its sides.
        assert_eq!(terms("why").len(), 6);
        assert_eq!(terms("why  not ").len(), 11);
        assert_eq!(shared("why", "not"), 0);
        assert_eq!(shared("why not", "not why"), 8);
        assert_eq!(shared("compare", "compared"), 6);
        assert_eq!(terms("1234567"), terms("99999"));
    }

    #[test]
    fn scripts_without_spaces_have_up_to_three_characters() {
        assert_eq!(terms("为什么").len(), 7);
        assert_eq!(shared("为什么", "你为什么"), 7);
        assert_eq!(shared("python", "请用python"), 8);
    }
}
