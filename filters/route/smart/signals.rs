//! What one text shows of its difficulty, read in one pass over a bounded part of it.

use super::words::{self, Found};
use crate::meter::estimate;

/// Bytes read of one text: its beginning and its end, where instructions stand.
pub const READ: usize = 4096;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Signals {
    pub words: Found,
    /// Estimate over the whole text.
    pub tokens: u64,
    /// Numbers of up to three digits; longer ones are years, orders and telephones.
    pub numbers: u32,
    /// Signs of percent and of currencies.
    pub amounts: u32,
    /// Fences, and signs that only code has many of.
    pub code: u32,
    pub math: u32,
    pub questions: u32,
    /// Lines that begin like items of a list.
    pub items: u32,
}

impl Signals {
    /// `limit` bounds the bytes that are read.
    pub fn of(text: &str, limit: usize) -> Self {
        let limit = limit.min(READ);
        let mut signals = Self::default();
        let mut folded = String::with_capacity(text.len().min(limit) + 2);
        let (head, tail) = windows(text, limit);
        signals.read(head, &mut folded);
        folded.push(' ');
        signals.read(tail, &mut folded);
        folded.push(' ');
        signals.words = words::count(&folded);
        let read = (head.len() + tail.len()).max(1) as u64;
        let tokens = estimate::tokens(estimate::text(head) + estimate::text(tail));
        signals.tokens = tokens.saturating_mul(text.len() as u64) / read;
        signals
    }

    fn read(&mut self, text: &str, folded: &mut String) {
        let (mut digits, mut line_start, mut before) = (0_u32, true, ' ');
        for character in text.chars() {
            if character.is_ascii_digit() {
                digits += 1;
            } else {
                if (1..=3).contains(&digits) {
                    self.numbers += 1;
                }
                self.sign(character, before, line_start, digits);
                digits = 0;
                if character == '\n' {
                    line_start = true;
                } else if character != ' ' {
                    line_start = false;
                }
            }
            words::fold(character, folded);
            before = character;
        }
        if (1..=3).contains(&digits) {
            self.numbers += 1;
        }
    }

    #[inline]
    fn sign(&mut self, character: char, before: char, line_start: bool, digits: u32) {
        match character {
            'a'..='z' | 'A'..='Z' | ' ' => {}
            '?' | '？' | '؟' => self.questions += 1,
            '{' | '}' | ';' | '<' | '>' | '`' | '_' | '|' | '\\' | '[' | ']' => self.code += 1,
            '(' if before.is_ascii_alphanumeric() => self.code += 1,
            '=' if "=!<>:+-".contains(before) => self.code += 1,
            '=' | '^' | '²' | '³' | '√' | '∫' | '∑' | 'π' | '≤' | '≥' | '×' | '÷' | '∞' | '−' =>
            {
                self.math += 1;
            }
            '%' | '$' | '€' | '£' | '¥' | '₽' | '٪' | '％' | '￥' => self.amounts += 1,
            '-' | '*' | '•' | '・' if line_start => self.items += 1,
            '.' | ')' | '、' if line_start && (1..=2).contains(&digits) => self.items += 1,
            _ => {}
        }
    }

    /// Evidence for `complex`: above 0 it is likelier than not.
    pub fn evidence(&self) -> f32 {
        self.features().iter().zip(WEIGHTS).map(|(feature, weight)| feature * weight).sum::<f32>()
            + BIAS
    }

    /// What is weighed, in the order of [`WEIGHTS`].
    fn features(&self) -> [f32; 10] {
        let capped = |count: u32, most: u32| count.min(most) as f32;
        [
            capped(self.words.hard, 3),
            capped(self.words.technical, 4),
            capped(self.words.easy, 3),
            (self.tokens as f32 / 20.0).ln_1p(),
            capped(self.numbers, 6),
            capped(self.amounts, 3),
            capped(self.code, 12) / 4.0,
            capped(self.math, 3),
            capped(self.questions.saturating_sub(1), 3),
            capped(self.items, 4),
        ]
    }
}

/// Fitted (logistic, with a penalty) to prompts whose words were not in the lists yet, then rounded. A fit
/// to prompts that the words come from would trust the words too much and length too little.
const WEIGHTS: [f32; 10] = [2.2, 1.4, -1.9, 1.8, 0.2, 0.8, 0.7, 0.7, 0.5, 0.2];
const BIAS: f32 = -2.1;

/// A text, or its first and last bytes; cut between characters.
fn windows(text: &str, limit: usize) -> (&str, &str) {
    if text.len() <= limit {
        return (text, "");
    }
    let head = text.floor_char_boundary(limit / 2);
    let tail = text.ceil_char_boundary(text.len() - limit / 2);
    (&text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn signs_are_counted() {
        let signals = Signals::of("1. Is 20 % of x² = 5?\n- or 12345？\n* `f(x)`؟", READ);
        assert_eq!((signals.numbers, signals.amounts, signals.math), (3, 1, 2));
        assert_eq!((signals.questions, signals.items, signals.code), (3, 3, 3));
    }

    #[test]
    fn of_a_long_text_both_ends_are_read() {
        let padding = "und weiter ".repeat(10_000);
        let at_the_end = Signals::of(&format!("{padding}. Why?"), READ);
        assert_eq!((at_the_end.words.hard, at_the_end.questions), (1, 1));
        let in_the_middle = Signals::of(&format!("{padding} why? {padding}"), READ);
        assert_eq!(in_the_middle.words.hard, 0);
        assert!(in_the_middle.tokens > 40_000);
    }

    proptest! {
        #[test]
        fn any_text_at_any_limit_has_finite_evidence(text in "\\PC{0,300}", limit in 0_usize..200) {
            prop_assert!(Signals::of(&text, limit).evidence().is_finite());
            prop_assert!(Signals::of(&text.repeat(40), READ).evidence().is_finite());
        }

        #[test]
        fn a_text_is_read_to_its_ends(text in "[a-z ؟ئ私🦀]{0,400}", limit in 0_usize..300) {
            let (head, tail) = windows(&text, limit);
            prop_assert!(head.len() + tail.len() <= limit.max(text.len().min(limit)));
            prop_assert!(text.starts_with(head) && text.ends_with(tail));
        }
    }
}
